-- Registrations that wait until their address is shown to be the applicant's. There is no account before that: nobody can sign
-- in with one, and no name is taken by one. Times are seconds since 1970. No link is here: its token is kept as a SHA-256 digest.

CREATE TABLE registrations (
    id           TEXT COLLATE "C" PRIMARY KEY,         -- random; not a secret
    email        TEXT COLLATE "C" NOT NULL UNIQUE,     -- canonical; a newer one takes the place of the last
    username     TEXT COLLATE "C" NOT NULL,            -- canonical; several may want the same, and the first to come back gets it
    name         TEXT,                                 -- for display
    password     TEXT NOT NULL,                        -- PHC
    invite       BYTEA CHECK (length(invite) = 32),    -- the digest of the invitation that it redeems; NULL: none
    digest       BYTEA UNIQUE CHECK (length(digest) = 32), -- of the link's token; NULL until its mail is sent
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL
);
CREATE INDEX registrations_by_expiry ON registrations (expires_at);
