-- The keys that sign access tokens, for gateways that share them. Times are seconds since 1970. No key can be used by whoever has
-- this file: each is encrypted (AES-256-GCM) with a key that is not here. Without one the keys are files beside this one.

CREATE TABLE signing_ring (
    purpose      TEXT PRIMARY KEY,             -- what they sign
    revision     TEXT NOT NULL                 -- random, another one with each change
) STRICT;

CREATE TABLE signing_keys (
    purpose      TEXT NOT NULL REFERENCES signing_ring (purpose) ON DELETE CASCADE,
    kid          TEXT NOT NULL,
    algorithm    TEXT NOT NULL,
    from_at      INTEGER NOT NULL,             -- signs from then on
    until_at     INTEGER,                      -- its tokens are refused from then on; NULL: it has no successor
    encryption   TEXT NOT NULL,                -- names the key that encrypts it
    sealed       BLOB NOT NULL CHECK (length(sealed) BETWEEN 29 AND 65536), -- nonce, ciphertext, tag
    PRIMARY KEY (purpose, kid)
) STRICT, WITHOUT ROWID;
