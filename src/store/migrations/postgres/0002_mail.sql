-- Mail that is to be sent, what was lately sent to whom, and the links in it that work once.
-- Times are seconds since 1970. No link is here: its token is made when the mail is sent, and kept as a SHA-256 digest.
-- A program of the version before knows none of these tables and works on beside them.

CREATE TABLE mail (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_id    TEXT COLLATE "C" NOT NULL UNIQUE, -- random; the same for each attempt, so that a mailbox can see that two are one
    purpose       TEXT NOT NULL,
    recipient     TEXT COLLATE "C" NOT NULL,        -- a canonical address, of an account or of none
    username      TEXT,                             -- whom the text greets, where that does not follow from the address
    client        TEXT,                             -- the address from which it was asked for
    created_at    BIGINT NOT NULL,
    first_due_at  BIGINT NOT NULL,                  -- when the limits had room for it
    due_at        BIGINT NOT NULL,                  -- not sent before
    attempts      BIGINT NOT NULL DEFAULT 0,        -- begun
    claimed_until BIGINT NOT NULL DEFAULT 0         -- until then one process has it in hand
);
CREATE INDEX mail_by_due ON mail (due_at, id);
CREATE INDEX mail_by_recipient ON mail (recipient, purpose);

-- One entry for each mail, for as long as it counts against a limit.
CREATE TABLE mail_budget (
    mail_id       BIGINT PRIMARY KEY,
    recipient     TEXT COLLATE "C" NOT NULL,
    at            BIGINT NOT NULL,                  -- when it was to be sent
    counted       BOOLEAN NOT NULL DEFAULT TRUE     -- false: nobody has the address; no part of the total
);
CREATE INDEX mail_budget_by_recipient ON mail_budget (recipient, at);
CREATE INDEX mail_budget_by_time ON mail_budget (at);

-- At most one for an account and a purpose: a newer one takes the place of the last.
CREATE TABLE mail_tokens (
    digest        BYTEA PRIMARY KEY CHECK (length(digest) = 32),
    user_id       TEXT COLLATE "C" NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose       TEXT NOT NULL,
    user_epoch    BIGINT NOT NULL,                  -- dead once the account has another
    expires_at    BIGINT NOT NULL,
    UNIQUE (user_id, purpose)
);
CREATE INDEX mail_tokens_by_expiry ON mail_tokens (expires_at);
