-- Mail that is to be sent, what was lately sent to whom, and the links in it that work once.
-- Times are seconds since 1970. No link is here: its token is made when the mail is sent, and kept as a SHA-256 digest.

CREATE TABLE mail (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id    TEXT NOT NULL UNIQUE,        -- random; the same for each attempt, so that a mailbox can see that two are one
    purpose       TEXT NOT NULL,
    recipient     TEXT NOT NULL,               -- a canonical address, of an account or of none
    username      TEXT,                        -- whom the text greets, where that does not follow from the address
    client        TEXT,                        -- the address from which it was asked for
    created_at    INTEGER NOT NULL,
    first_due_at  INTEGER NOT NULL,            -- when the limits had room for it
    due_at        INTEGER NOT NULL,            -- not sent before
    attempts      INTEGER NOT NULL DEFAULT 0,  -- begun
    claimed_until INTEGER NOT NULL DEFAULT 0   -- until then one process has it in hand
) STRICT;
CREATE INDEX mail_by_due ON mail (due_at);
CREATE INDEX mail_by_recipient ON mail (recipient, purpose);

-- One entry for each mail, for as long as it counts against a limit.
CREATE TABLE mail_budget (
    mail_id       INTEGER PRIMARY KEY,
    recipient     TEXT NOT NULL,
    at            INTEGER NOT NULL,            -- when it was to be sent
    counted       INTEGER NOT NULL DEFAULT 1 CHECK (counted IN (0, 1)) -- 0: nobody has the address; no part of the total
) STRICT;
CREATE INDEX mail_budget_by_recipient ON mail_budget (recipient, at);
CREATE INDEX mail_budget_by_time ON mail_budget (counted, at);

-- At most one for an account and a purpose: a newer one takes the place of the last.
CREATE TABLE mail_tokens (
    digest        BLOB PRIMARY KEY CHECK (length(digest) = 32),
    user_id       TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    purpose       TEXT NOT NULL,
    user_epoch    INTEGER NOT NULL,            -- dead once the account has another
    expires_at    INTEGER NOT NULL,
    UNIQUE (user_id, purpose)
) STRICT, WITHOUT ROWID;
CREATE INDEX mail_tokens_by_expiry ON mail_tokens (expires_at);
