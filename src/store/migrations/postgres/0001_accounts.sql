-- Accounts, their sessions, the refresh tokens of each session, and what was revoked before its time.
-- Times are seconds since 1970. Secrets are absent: passwords are argon2id in PHC form, refresh tokens are SHA-256 digests.
-- Names are compared and sorted by their bytes, whatever the locale of the database.

CREATE TABLE users (
    id           TEXT COLLATE "C" PRIMARY KEY,         -- random, the `sub` of tokens; never reused
    username     TEXT COLLATE "C" NOT NULL UNIQUE,     -- canonical; stays with a deleted account, so that nobody inherits it
    email        TEXT COLLATE "C" UNIQUE,              -- canonical; NULL once the account is deleted
    name         TEXT,                                 -- for display
    password     TEXT,                                 -- PHC; NULL: nobody can sign in with a password
    roles        TEXT[] NOT NULL DEFAULT '{}',
    disabled     BOOLEAN NOT NULL DEFAULT FALSE,
    epoch        BIGINT NOT NULL DEFAULT 1,            -- grows when password, roles or state change
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);

-- A refresh changes `last_used_at` alone, which no index has, so that the row can be replaced within its page.
CREATE TABLE sessions (
    id           TEXT COLLATE "C" PRIMARY KEY,         -- random, the `sid` of tokens; not a secret
    number       BIGINT GENERATED ALWAYS AS IDENTITY,  -- tells the younger of two of the same second
    user_id      TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    ends_at      BIGINT NOT NULL,                      -- the absolute limit
    device       TEXT NOT NULL,                        -- the start of the user agent
    ip           TEXT NOT NULL,
    revoked_at   BIGINT
) WITH (fillfactor = 85);
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (ends_at);

CREATE TABLE refresh_tokens (
    digest       BYTEA PRIMARY KEY CHECK (length(digest) = 32),
    session_id   TEXT COLLATE "C" NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at    BIGINT NOT NULL,
    rotated_at   BIGINT,                               -- NULL: the live end of the family
    successor    BYTEA,                                -- the digest of the token that replaced it
    salt         BYTEA,                                -- with the token itself gives the successor again; erased after the grace window
    CHECK ((rotated_at IS NULL) = (successor IS NULL))
);
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_salt ON refresh_tokens (rotated_at) WHERE salt IS NOT NULL;
-- At most one live end in a family, whatever happens (SESS-3).
CREATE UNIQUE INDEX refresh_tokens_live ON refresh_tokens (session_id) WHERE rotated_at IS NULL;

-- Read by every process: what must be refused although its signature is good.
CREATE TABLE revocations (
    id           BIGINT PRIMARY KEY,                   -- from `feed`
    kind         TEXT NOT NULL CHECK (kind IN ('session', 'token')),
    key          TEXT NOT NULL,
    until        BIGINT NOT NULL                       -- afterwards no token of it can be alive
);
CREATE INDEX revocations_by_until ON revocations (until);

-- The number of the last entry. Whoever adds entries holds this row until the end of its transaction, so entries become visible
-- in the order of their numbers; with a sequence, a reader could see the later of two first and never ask for the earlier.
CREATE TABLE feed (
    single       BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    last         BIGINT NOT NULL
) WITH (fillfactor = 10);
INSERT INTO feed (last) VALUES (0);
