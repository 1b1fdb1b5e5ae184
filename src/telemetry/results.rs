//! How things ended that are counted by their outcome: closed sets, whose names are labels of metrics.

/// What became of certificate files that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateReload {
    /// What was in use stays.
    Refused,
    /// New connections use them.
    Taken,
}

/// What became of an attempt to load the configuration anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigReload {
    /// Something is wrong with it: the running one stays.
    Refused,
    /// It is good, and differs in what needs another start: the running one stays.
    RestartRequired,
    /// It runs.
    Taken,
    /// It is good and says what the running one says.
    Unchanged,
}

/// How a TLS handshake ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeResult {
    /// The connection is encrypted.
    Completed,
    /// The client, or what it sent, was not acceptable, or it went away.
    Failed,
    /// It did not begin: a PROXY header was required, and was missing, malformed, or of a peer that may not send one.
    NotRelayed,
    /// The client was too slow.
    TimedOut,
}

/// What became of an attempt to send a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailResult {
    /// There was nobody to send it to.
    Dropped,
    /// It will be tried again.
    Failed,
    /// It will not be tried again.
    GivenUp,
    /// It was handed over.
    Sent,
}

/// What became of a span of a traced request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanResult {
    /// Too many waited already.
    Dropped,
    /// The collector took it.
    Exported,
    /// The collector could not be reached, or refused it.
    Failed,
}

/// What became of a request that was to be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryResult {
    /// It was sent again and answered.
    Answered,
    /// It was sent again and not answered either.
    Failed,
    /// It was not sent again: too many were already.
    OverBudget,
}

impl MailResult {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
            Self::Sent => "sent",
        }
    }
}

impl RetryResult {
    pub(super) const ALL: [Self; 3] = [Self::Answered, Self::Failed, Self::OverBudget];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::OverBudget => "over_budget",
        }
    }
}

impl SpanResult {
    pub(super) const ALL: [Self; 3] = [Self::Dropped, Self::Exported, Self::Failed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Dropped => "dropped",
            Self::Exported => "exported",
            Self::Failed => "failed",
        }
    }
}

impl CertificateReload {
    /// The label of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Taken => "taken",
        }
    }
}

impl ConfigReload {
    pub(super) const ALL: [Self; 4] = [
        Self::Refused,
        Self::RestartRequired,
        Self::Taken,
        Self::Unchanged,
    ];

    /// The label of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::RestartRequired => "restart_required",
            Self::Taken => "taken",
            Self::Unchanged => "unchanged",
        }
    }

    /// Whether what runs is what the file says.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Taken | Self::Unchanged)
    }
}

impl HandshakeResult {
    /// The label of metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::NotRelayed => "not_relayed",
            Self::TimedOut => "timed_out",
        }
    }
}
