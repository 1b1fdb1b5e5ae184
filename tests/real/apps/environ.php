<?php
// Answers with what PHP made of the request.
header("Content-Type: application/json");
$texts = array_filter($_SERVER, "is_string");
echo json_encode(["environ" => $texts, "body_bytes" => strlen(file_get_contents("php://input"))], JSON_INVALID_UTF8_SUBSTITUTE);
