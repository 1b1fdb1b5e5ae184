-- Token check for nginx with lua-nginx-module, written as a careful operator would: signature by libcrypto through the
-- FFI, every claim checked, verified tokens kept in an LRU cache of the worker. It exists to be measured against; it is
-- no product.
local cjson = require "cjson.safe"
local ffi = require "ffi"
local lrucache = require "resty.lrucache"

ffi.cdef [[
typedef struct evp_md_st EVP_MD;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct bio_st BIO;
const EVP_MD *EVP_sha256(void);
unsigned char *HMAC(const EVP_MD *md, const void *key, int key_len, const unsigned char *data, size_t n,
                    unsigned char *out, unsigned int *out_len);
int CRYPTO_memcmp(const void *a, const void *b, size_t len);
BIO *BIO_new_mem_buf(const void *buf, int len);
EVP_PKEY *PEM_read_bio_PUBKEY(BIO *bp, EVP_PKEY **x, void *cb, void *u);
EVP_MD_CTX *EVP_MD_CTX_new(void);
void EVP_MD_CTX_free(EVP_MD_CTX *ctx);
int EVP_DigestVerifyInit(EVP_MD_CTX *ctx, void **pctx, const EVP_MD *type, void *e, EVP_PKEY *pkey);
int EVP_DigestVerify(EVP_MD_CTX *ctx, const unsigned char *sig, size_t sig_len, const unsigned char *data, size_t n);
void ERR_clear_error(void);
]]
local C = ffi.C

local LEEWAY, TTL, ENTRIES = 30, 60, 50000
local digest, digest_len = ffi.new("unsigned char[64]"), ffi.new("unsigned int[1]")
local cache, issuers, audience, role

local M = {}

-- One integer of an ECDSA signature as DER.
local function der_integer(bytes)
  bytes = bytes:gsub("^%z+", "")
  if bytes == "" or bytes:byte(1) >= 0x80 then bytes = "\0" .. bytes end
  return "\2" .. string.char(#bytes) .. bytes
end

local function verify_hs256(key, data, signature)
  C.HMAC(C.EVP_sha256(), key, #key, data, #data, digest, digest_len)
  return #signature == 32 and C.CRYPTO_memcmp(digest, signature, 32) == 0
end

local function verify_public(key, data, signature)
  local context = C.EVP_MD_CTX_new()
  local good = C.EVP_DigestVerifyInit(context, nil, C.EVP_sha256(), nil, key) == 1
    and C.EVP_DigestVerify(context, signature, #signature, data, #data) == 1
  C.EVP_MD_CTX_free(context)
  -- nginx reports what is left in OpenSSL's error queue as its own fault.
  if not good then C.ERR_clear_error() end
  return good
end

local function verify_es256(key, data, signature)
  if #signature ~= 64 then return false end
  local body = der_integer(signature:sub(1, 32)) .. der_integer(signature:sub(33))
  return verify_public(key, data, "\48" .. string.char(#body) .. body)
end

local verifiers = { HS256 = verify_hs256, RS256 = verify_public, ES256 = verify_es256 }

local function public_key(path)
  local file = assert(io.open(path, "rb"))
  local pem = file:read("*a")
  file:close()
  local key = C.PEM_read_bio_PUBKEY(C.BIO_new_mem_buf(pem, #pem), nil, nil, nil)
  assert(key ~= nil, "no public key in " .. path)
  return key
end

-- settings: { audience, role, issuers = { [iss] = { alg, secret or public_key_file } } }
function M.start(settings)
  cache = assert(lrucache.new(ENTRIES))
  audience, role, issuers = settings.audience, settings.role, settings.issuers
  for _, entry in pairs(issuers) do
    entry.key = entry.secret or public_key(entry.public_key_file)
    entry.verify = verifiers[entry.alg]
  end
end

local function decode(segment)
  local bytes = ngx.decode_base64(segment:gsub("[-_]", { ["-"] = "+", ["_"] = "/" }) .. ("="):rep(-#segment % 4))
  return bytes
end

local function has(list, wanted)
  if type(list) ~= "table" then return list == wanted end
  for index = 1, #list do
    if list[index] == wanted then return true end
  end
  return false
end

local function number(value) return type(value) == "number" end

local function verify(token, now)
  if #token > 8192 then return nil end
  local head, payload, tail = token:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
  if not head then return nil end
  local header, claims = cjson.decode(decode(head) or ""), cjson.decode(decode(payload) or "")
  local signature = decode(tail)
  if type(header) ~= "table" or type(claims) ~= "table" or not signature then return nil end
  local issuer = issuers[claims.iss]
  if not issuer or header.alg ~= issuer.alg or header.crit ~= nil then return nil end
  if not issuer.verify(issuer.key, head .. "." .. payload, signature) then return nil end
  if not number(claims.exp) or claims.exp + LEEWAY <= now then return nil end
  if claims.nbf ~= nil and (not number(claims.nbf) or claims.nbf > now + LEEWAY) then return nil end
  if claims.iat ~= nil and (not number(claims.iat) or claims.iat > now + LEEWAY) then return nil end
  if not has(claims.aud, audience) then return nil end
  if type(claims.sub) ~= "string" or claims.sub == "" then return nil end
  local roles = type(claims.roles) == "table" and claims.roles or {}
  return {
    exp = claims.exp + LEEWAY, user = claims.sub, email = claims.email, name = claims.preferred_username,
    groups = table.concat(roles, ","), scopes = claims.scope, issuer = claims.iss, allowed = has(roles, role),
  }
end

-- The access phase of a protected location. The location's `set` lines declare the variables.
function M.check()
  local field = ngx.var.http_authorization
  if not field or field:sub(1, 7) ~= "Bearer " then return ngx.exit(401) end
  local token, now = field:sub(8), ngx.time()
  local identity = cache:get(token)
  if not identity then
    identity = verify(token, now)
    if not identity then return ngx.exit(401) end
    cache:set(token, identity, math.min(TTL, identity.exp - now))
  end
  if identity.exp <= now then return ngx.exit(401) end
  if not identity.allowed then return ngx.exit(403) end
  local var = ngx.var
  var.gate_user, var.gate_email, var.gate_name = identity.user, identity.email or "", identity.name or ""
  var.gate_groups, var.gate_scopes, var.gate_issuer = identity.groups, identity.scopes or "", identity.issuer
end

return M
