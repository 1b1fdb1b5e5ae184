-- The keys that sign access tokens, for all nodes. Times are seconds since 1970. No key can be used by whoever has this database:
-- each is encrypted (AES-256-GCM) with a key that is not here. Without one the keys are files of each node.
-- A program of the version before knows none of these tables and works on beside them.

CREATE TABLE signing_ring (
    purpose      TEXT COLLATE "C" PRIMARY KEY,         -- what they sign
    revision     TEXT COLLATE "C" NOT NULL             -- random, another one with each change
);

CREATE TABLE signing_keys (
    purpose      TEXT COLLATE "C" NOT NULL REFERENCES signing_ring (purpose) ON DELETE CASCADE,
    kid          TEXT COLLATE "C" NOT NULL,
    algorithm    TEXT NOT NULL,
    from_at      BIGINT NOT NULL,                      -- signs from then on
    until_at     BIGINT,                               -- its tokens are refused from then on; NULL: it has no successor
    encryption   TEXT NOT NULL,                        -- names the key that encrypts it
    sealed       BYTEA NOT NULL CHECK (length(sealed) BETWEEN 29 AND 65536), -- nonce, ciphertext, tag
    PRIMARY KEY (purpose, kid)
);
