-- Invitations, the first administrator's secret among them, and accounts whose address is not proved yet.
-- Times are seconds since 1970. No secret is here: an invitation is kept as a SHA-256 digest.

-- 1: registered, and the address not yet shown to be the owner's; such an account gives no access.
ALTER TABLE users ADD COLUMN pending INTEGER NOT NULL DEFAULT 0 CHECK (pending IN (0, 1));

-- Whoever counts administrators must not read every account. Roles are words, so the quoted one is in the list or nowhere.
CREATE INDEX users_admins ON users (id)
    WHERE instr(roles, '"admin"') > 0 AND disabled = 0 AND pending = 0 AND email IS NOT NULL;

-- Consumed by deletion, in the transaction that makes the account.
CREATE TABLE invites (
    id           TEXT PRIMARY KEY,             -- random; not a secret
    digest       BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    bootstrap    INTEGER NOT NULL CHECK (bootstrap IN (0, 1)), -- 1: for the first administrator
    roles        TEXT NOT NULL,                -- JSON list of words, for the account that it makes
    email        TEXT,                         -- canonical; NULL: for whoever has it
    created_by   TEXT,                         -- `sub`; NULL: an operator by command
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX invites_by_expiry ON invites (expires_at);
