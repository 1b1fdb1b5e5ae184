-- Accounts, their sessions, the refresh tokens of each session, and what was revoked before its time.
-- Times are seconds since 1970. Secrets are absent: passwords are argon2id in PHC form, refresh tokens are SHA-256 digests.

CREATE TABLE users (
    id           TEXT PRIMARY KEY,             -- random, the `sub` of tokens; never reused
    username     TEXT NOT NULL UNIQUE,         -- canonical; stays with a deleted account, so that nobody inherits it
    email        TEXT UNIQUE,                  -- canonical; NULL once the account is deleted
    name         TEXT,                         -- for display
    password     TEXT,                         -- PHC; NULL: nobody can sign in with a password
    roles        TEXT NOT NULL DEFAULT '[]',   -- JSON list of words
    disabled     INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    epoch        INTEGER NOT NULL DEFAULT 1,   -- grows when password, roles or state change
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    id           TEXT PRIMARY KEY,             -- random, the `sid` of tokens; not a secret
    user_id      TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    ends_at      INTEGER NOT NULL,             -- the absolute limit
    device       TEXT NOT NULL,                -- the start of the user agent
    ip           TEXT NOT NULL,
    revoked_at   INTEGER
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user_id, last_used_at);
CREATE INDEX sessions_by_end ON sessions (ends_at);

CREATE TABLE refresh_tokens (
    digest       BLOB PRIMARY KEY CHECK (length(digest) = 32),
    session_id   TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at    INTEGER NOT NULL,
    rotated_at   INTEGER,                      -- NULL: the live end of the family
    successor    BLOB,                         -- the digest of the token that replaced it
    salt         BLOB,                         -- with the token itself gives the successor again; erased after the grace window
    CHECK ((rotated_at IS NULL) = (successor IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_by_salt ON refresh_tokens (rotated_at) WHERE salt IS NOT NULL;
-- At most one live end in a family, whatever happens (SESS-3).
CREATE UNIQUE INDEX refresh_tokens_live ON refresh_tokens (session_id) WHERE rotated_at IS NULL;

-- Read by every process: what must be refused although its signature is good.
CREATE TABLE revocations (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    kind         TEXT NOT NULL CHECK (kind IN ('session', 'token')),
    key          TEXT NOT NULL,
    until        INTEGER NOT NULL              -- afterwards no token of it can be alive
) STRICT;
CREATE INDEX revocations_by_until ON revocations (until);
