-- Invitations, the first administrator's secret among them, and accounts whose address is not proved yet.
-- Times are seconds since 1970. No secret is here: an invitation is kept as a SHA-256 digest.

-- Registered, and the address not yet shown to be the owner's; such an account gives no access.
ALTER TABLE users ADD COLUMN pending BOOLEAN NOT NULL DEFAULT FALSE;

-- Whoever counts administrators must not read every account.
CREATE INDEX users_admins ON users (id)
    WHERE 'admin' = ANY (roles) AND NOT disabled AND NOT pending AND email IS NOT NULL;

-- Consumed by deletion, in the transaction that makes the account.
CREATE TABLE invites (
    id           TEXT COLLATE "C" PRIMARY KEY,         -- random; not a secret
    digest       BYTEA NOT NULL UNIQUE CHECK (length(digest) = 32),
    bootstrap    BOOLEAN NOT NULL,                     -- for the first administrator
    roles        TEXT[] NOT NULL,                      -- for the account that it makes
    email        TEXT COLLATE "C",                     -- canonical; NULL: for whoever has it
    created_by   TEXT,                                 -- `sub`; NULL: an operator by command
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX invites_by_expiry ON invites (expires_at);
