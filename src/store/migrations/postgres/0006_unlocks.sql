-- How often an operator has unlocked the account: each time begins a new budget of attempts at its password (RATE-4).
ALTER TABLE users ADD COLUMN unlocks BIGINT NOT NULL DEFAULT 0;
