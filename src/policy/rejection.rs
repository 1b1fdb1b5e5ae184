//! Every reason for which a request is not served, as one closed enum.
//!
//! A rejection carries data, never prose: status, code and the fixed text for the client come from one table without a
//! catch-all row, so that a new reason cannot slip out as a 500. What a stranger must not learn (which check of
//! a bad token failed) is in [`Rejection::reason`], which goes to the log alone.

use std::time::Duration;

use http::{Method, StatusCode};

/// Why a request is refused. Variants are alphabetical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// An account with this name or address exists.
    AccountExists,
    /// The client's address is not allowed here.
    AddressDenied,
    /// More than one credential, or one credential twice.
    AmbiguousCredentials,
    /// The path could be read in two ways.
    AmbiguousPath(PathFault),
    /// The request is malformed; the fault is for the log.
    BadRequest(HeadFault),
    /// The body is larger than this route takes.
    BodyTooLarge,
    /// The token's claims do not satisfy the route's rule.
    ClaimMismatch(ClaimFault),
    /// The route needs a credential and none was sent.
    CredentialsMissing,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// The header section is larger than the limit.
    HeadersTooLarge,
    /// A request without TLS that is no page's navigation, which alone is sent on.
    HttpsRequired,
    /// A fault of ours.
    Internal,
    /// A service that did not prove who it is.
    InvalidClient,
    /// A login whose name or password is wrong, without saying which.
    InvalidCredentials,
    /// A refresh token that is not, or no longer, good.
    InvalidGrant,
    /// The keys of an issuer could not be had.
    KeysUnavailable,
    /// Nobody could administer accounts afterwards.
    LastAdmin,
    /// A link of a mail that is not, or no longer, good.
    LinkInvalid,
    /// The request has passed this gateway before.
    LoopDetected,
    /// The route exists, but not for this method.
    MethodNotAllowed(Vec<Method>),
    /// The TLS connection was not made for the host of the request.
    MisdirectedRequest,
    /// Every server of the upstream is out.
    NoHealthyUpstream,
    /// The request comes from a foreign origin.
    OriginDenied,
    /// A queue or a cap is full.
    Overloaded,
    /// A new password that is not taken.
    PasswordRefused(PasswordFault),
    /// The caller asked too often.
    RateLimited(Exceeded),
    /// The client took too long to send its request.
    RequestTimeout,
    /// The caller has none of the roles that the route requires.
    RoleMissing,
    /// No route matches.
    RouteNotFound,
    /// The caller lacks a scope that the route requires; the scopes required, space-separated, for the challenge.
    ScopeMissing(std::sync::Arc<str>),
    /// The account store cannot be reached or cannot write.
    StoreUnavailable,
    /// A well-signed token whose time is over.
    TokenExpired,
    /// A token that failed a check; which one is for the log.
    TokenInvalid(TokenFault),
    /// A body in a format that this route does not take.
    UnsupportedMediaType,
    /// The upstream's answer is not HTTP.
    UpstreamInvalid,
    /// The upstream's certificate or handshake is bad.
    UpstreamTls,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// No connection to the upstream, or it ended before an answer.
    UpstreamUnreachable,
    /// The request target is longer than the limit.
    UriTooLong,
}

/// What is said of a reason.
struct Terms {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: &'static str,
}

/// A limit that was exceeded, with what the client needs to behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit's name: a label of metrics and of `RateLimit-Policy`.
    pub limit: &'static str,
    /// The wait until one request is allowed again.
    pub retry_after: Duration,
    /// How many requests the limit takes in a `window` beyond the burst.
    pub quota: u32,
    /// The window of `quota`.
    pub window: Duration,
}

/// What is wrong with a path (URI-1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathFault {
    /// A backslash, raw or encoded.
    Backslash,
    /// A control byte or space, raw or encoded; a space at either end of a segment.
    Control,
    /// A `.` or `..` segment.
    DotSegment,
    /// `%25` followed by two hex digits.
    DoubleEncoding,
    /// `%2F`.
    EncodedSlash,
    /// A `#` in the request target.
    Fragment,
    /// A `%` that is not followed by two hex digits.
    MalformedEscape,
    /// The decoded bytes are not UTF-8.
    NotUtf8,
    /// A `;`, which some servers read as the start of a path parameter.
    Parameter,
    /// The path does not begin with `/`.
    Relative,
}

/// What is wrong with a request's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// `Host` and the authority of the request target differ.
    AuthorityMismatch,
    /// The body is not what the route reads; the field or syntax is wrong.
    Body,
    /// A connection-specific field in HTTP/2.
    ConnectionField,
    /// `Content-Length` beside `Transfer-Encoding`, or more than one of either.
    Framing,
    /// `Host` is missing.
    HostMissing,
    /// `Host` is not a host with an optional port.
    HostSyntax,
    /// `Max-Forwards` of an `OPTIONS` request is no number.
    MaxForwards,
    /// A proxy's question does not say which request it is about, or says it in two ways.
    OriginalRequest,
    /// A field that may appear once appears twice.
    RepeatedField,
    /// The request target's scheme is neither `http` nor `https`.
    Scheme,
    /// `Transfer-Encoding` is something other than `chunked`.
    TransferEncoding,
    /// It asks for a WebSocket and is not what such a request must be.
    Upgrade,
    /// The protocol version is not served.
    Version,
}

/// Why a new password is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordFault {
    /// It is in a list of passwords that were stolen elsewhere.
    Breached,
    /// It is made of common passwords, sequences and words about its owner.
    Common,
    /// It is longer than any that is taken.
    TooLong,
    /// It has fewer characters than the configuration asks for.
    TooShort,
}

/// Which rule over the claims was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimFault {
    /// The token is not meant for this route's audience.
    Audience,
    /// A claim has none of the values that the route names.
    Claim,
    /// The token's issuer is not one that the route takes.
    Issuer,
    /// A claim that must go into a header cannot be written there (HDR-5).
    Unprintable,
}

/// Which check a token failed. Told to the log alone (JWT-11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFault {
    /// `alg` is not the one that the key carries.
    Algorithm,
    /// `aud` is absent, malformed, or names someone else.
    Audience,
    /// A claim has the wrong JSON type or appears twice.
    ClaimType,
    /// `crit`, or a header parameter that changes the meaning of the rest (`b64`, `zip`, `enc`, `p2c`).
    CriticalHeader,
    /// `exp` is absent or out of range.
    ExpiryMissing,
    /// The header is not a JSON object with an `alg`, or repeats a name.
    Header,
    /// Its issuer was asked, and says that the token is not active (RFC 7662 §2.2).
    Inactive,
    /// `iat` lies in the future.
    IssuedInFuture,
    /// `iss` is absent or belongs to no issuer of the configuration.
    Issuer,
    /// `kid` names no key, or is not a plain name of at most 256 bytes.
    KeyUnknown,
    /// The payload is not a JSON object, repeats a name, or nests too deep.
    Payload,
    /// `nbf` lies in the future.
    NotYetValid,
    /// The token, its session or its user's tokens were revoked.
    Revoked,
    /// The `Authorization` field is not `Bearer` and one token.
    Scheme,
    /// Not three base64url segments.
    Segments,
    /// The signature does not verify.
    Signature,
    /// `sub` is absent or empty.
    Subject,
    /// The token is longer than 8 KiB.
    TooLong,
    /// `typ` is not one that the issuer's access tokens bear.
    Type,
}

impl Rejection {
    /// Every reason with all that is said of it, one row each and no catch-all: a new reason cannot slip out as a 500.
    #[expect(
        clippy::too_many_lines,
        reason = "a table; a row for each reason, and nothing else"
    )]
    const fn terms(&self) -> Terms {
        match self {
            Self::AccountExists => Terms {
                status: StatusCode::CONFLICT,
                code: "account_exists",
                title: "Account exists",
                detail: "An account with this name or address exists; sign in, or choose another name.",
            },
            Self::AddressDenied => Terms {
                status: StatusCode::FORBIDDEN,
                code: "address_denied",
                title: "Address not allowed",
                detail: "Requests from this address are not allowed here.",
            },
            Self::AmbiguousCredentials => Terms {
                status: StatusCode::BAD_REQUEST,
                code: "ambiguous_credentials",
                title: "Ambiguous credentials",
                detail: "Send exactly one credential: one Authorization field with one bearer token.",
            },
            Self::AmbiguousPath(_) => Terms {
                status: StatusCode::BAD_REQUEST,
                code: "ambiguous_path",
                title: "Ambiguous path",
                detail: "The path can be read in more than one way; send it without dot segments, encoded slashes, backslashes, semicolons, control characters or double encoding.",
            },
            Self::BadRequest(_) => Terms {
                status: StatusCode::BAD_REQUEST,
                code: "bad_request",
                title: "Bad request",
                detail: "The request is malformed; see the code's documentation for what is checked.",
            },
            Self::BodyTooLarge => Terms {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                code: "body_too_large",
                title: "Body too large",
                detail: "The request body is larger than this route accepts.",
            },
            Self::ClaimMismatch(_) => Terms {
                status: StatusCode::FORBIDDEN,
                code: "claim_mismatch",
                title: "Not allowed for this token",
                detail: "The token is valid, but its claims do not allow this request.",
            },
            Self::CredentialsMissing => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "credentials_missing",
                title: "Sign-in required",
                detail: "Send a bearer token in the Authorization field.",
            },
            Self::ExpectationFailed => Terms {
                status: StatusCode::EXPECTATION_FAILED,
                code: "expectation_failed",
                title: "Expectation failed",
                detail: "The only expectation served is 100-continue.",
            },
            Self::HeadersTooLarge => Terms {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, // RFC 6585 §5
                code: "headers_too_large",
                title: "Headers too large",
                detail: "The header section is larger than the limit; send fewer or shorter fields.",
            },
            Self::HttpsRequired => Terms {
                status: StatusCode::FORBIDDEN,
                code: "https_required",
                title: "HTTPS required",
                detail: "Use https; what was sent without encryption, passwords and tokens above all, should be taken for known to others.",
            },
            Self::Internal => Terms {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                code: "internal",
                title: "Internal error",
                detail: "The gateway failed; report the request id to its operator.",
            },
            Self::InvalidClient => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "invalid_client",
                title: "Unknown client",
                detail: "The client's name or secret is wrong or missing.",
            },
            Self::InvalidCredentials => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "invalid_credentials",
                title: "Sign-in failed",
                detail: "The name or the password is wrong.",
            },
            Self::InvalidGrant => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "invalid_grant",
                title: "Session ended",
                detail: "The refresh token is not valid any more; sign in again.",
            },
            Self::KeysUnavailable => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "keys_unavailable",
                title: "Keys unavailable",
                detail: "The keys of the token's issuer cannot be had now; try again later.",
            },
            Self::LastAdmin => Terms {
                status: StatusCode::CONFLICT,
                code: "last_admin",
                title: "Last administrator",
                detail: "This is the last administrator; give another account the role first.",
            },
            Self::LinkInvalid => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "invalid_grant",
                title: "Link not valid",
                detail: "The link is not valid any more: it works once and for a short time; ask for a new one.",
            },
            Self::LoopDetected => Terms {
                status: StatusCode::LOOP_DETECTED, // RFC 5842 §7.2
                code: "loop_detected",
                title: "Loop detected",
                detail: "The request has passed this gateway before; the upstream points back at it.",
            },
            Self::MethodNotAllowed(_) => Terms {
                status: StatusCode::METHOD_NOT_ALLOWED,
                code: "method_not_allowed",
                title: "Method not allowed",
                detail: "This route does not take the method; see the Allow field.",
            },
            Self::MisdirectedRequest => Terms {
                status: StatusCode::MISDIRECTED_REQUEST,
                code: "misdirected_request",
                title: "Misdirected request",
                detail: "This connection was not made for that host; open a new one.",
            },
            Self::NoHealthyUpstream => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "no_healthy_upstream",
                title: "No healthy upstream",
                detail: "Every server behind this route is out; try again later.",
            },
            Self::OriginDenied => Terms {
                status: StatusCode::FORBIDDEN,
                code: "origin_denied",
                title: "Origin not allowed",
                detail: "The request comes from an origin that may not make it.",
            },
            Self::Overloaded => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "overloaded",
                title: "Overloaded",
                detail: "Too much is going on; try again after the time in Retry-After.",
            },
            Self::PasswordRefused(fault) => Terms {
                status: StatusCode::BAD_REQUEST,
                code: "bad_request",
                title: "Password not accepted",
                detail: fault.detail(),
            },
            Self::RateLimited(_) => Terms {
                status: StatusCode::TOO_MANY_REQUESTS, // RFC 6585 §4
                code: "rate_limited",
                title: "Too many requests",
                detail: "Too many requests; try again after the time in Retry-After.",
            },
            Self::RequestTimeout => Terms {
                status: StatusCode::REQUEST_TIMEOUT,
                code: "request_timeout",
                title: "Request timeout",
                detail: "The request took too long to arrive.",
            },
            Self::RoleMissing => Terms {
                status: StatusCode::FORBIDDEN,
                code: "role_missing",
                title: "Role missing",
                detail: "The caller has none of the roles that this route requires.",
            },
            Self::RouteNotFound => Terms {
                status: StatusCode::NOT_FOUND,
                code: "route_not_found",
                title: "Not found",
                detail: "No route matches this host and path.",
            },
            Self::ScopeMissing(_) => Terms {
                status: StatusCode::FORBIDDEN,
                code: "scope_missing",
                title: "Scope missing",
                detail: "The token lacks a scope that this route requires.",
            },
            Self::StoreUnavailable => Terms {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "store_unavailable",
                title: "Accounts unavailable",
                detail: "The account store cannot be used now; try again after the time in Retry-After.",
            },
            Self::TokenExpired => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "token_expired",
                title: "Token expired",
                detail: "The token has expired; get a new one.",
            },
            Self::TokenInvalid(_) => Terms {
                status: StatusCode::UNAUTHORIZED,
                code: "token_invalid",
                title: "Token invalid",
                detail: "The token is not valid; get a new one.",
            },
            Self::UnsupportedMediaType => Terms {
                status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
                code: "unsupported_media_type",
                title: "Unsupported media type",
                detail: "Send the body as application/json.",
            },
            Self::UpstreamInvalid => Terms {
                status: StatusCode::BAD_GATEWAY,
                code: "upstream_invalid",
                title: "Bad answer from upstream",
                detail: "The server behind this route sent something that is not an HTTP answer.",
            },
            Self::UpstreamTls => Terms {
                status: StatusCode::BAD_GATEWAY,
                code: "upstream_tls",
                title: "Upstream TLS failure",
                detail: "The TLS connection to the server behind this route failed.",
            },
            Self::UpstreamTimeout => Terms {
                status: StatusCode::GATEWAY_TIMEOUT,
                code: "upstream_timeout",
                title: "Upstream timeout",
                detail: "The server behind this route did not answer in time.",
            },
            Self::UpstreamUnreachable => Terms {
                status: StatusCode::BAD_GATEWAY,
                code: "upstream_unreachable",
                title: "Upstream unreachable",
                detail: "The server behind this route cannot be reached.",
            },
            Self::UriTooLong => Terms {
                status: StatusCode::URI_TOO_LONG,
                code: "uri_too_long",
                title: "Request target too long",
                detail: "The request target is longer than the limit.",
            },
        }
    }

    /// The status of the answer.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.terms().status
    }

    /// The code that is the same in the answer's body, the log, the metrics and `explain`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.terms().code
    }

    /// A short title for people, the same for every occurrence of the code (RFC 9457 §3.1.3).
    #[must_use]
    pub const fn title(&self) -> &'static str {
        self.terms().title
    }

    /// One fixed sentence that tells the client what to do.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        self.terms().detail
    }

    /// The finer reason for the log; `None` where the code says it all. Never sent to the client.
    #[must_use]
    pub const fn reason(&self) -> Option<&'static str> {
        if let Self::AmbiguousPath(fault) = self {
            Some(fault.name())
        } else if let Self::BadRequest(fault) = self {
            Some(fault.name())
        } else if let Self::ClaimMismatch(fault) = self {
            Some(fault.name())
        } else if let Self::PasswordRefused(fault) = self {
            Some(fault.name())
        } else if let Self::TokenInvalid(fault) = self {
            Some(fault.name())
        } else if let Self::RateLimited(exceeded) = self {
            Some(exceeded.limit)
        } else {
            None
        }
    }

    /// How long the client should wait before it tries again; `None` where trying again is no use.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::RateLimited(exceeded) = self {
            return Some(exceeded.retry_after);
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1))
    }
}

impl PathFault {
    /// The fault's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backslash => "backslash",
            Self::Control => "control",
            Self::DotSegment => "dot_segment",
            Self::DoubleEncoding => "double_encoding",
            Self::EncodedSlash => "encoded_slash",
            Self::Fragment => "fragment",
            Self::MalformedEscape => "malformed_escape",
            Self::NotUtf8 => "not_utf8",
            Self::Parameter => "parameter",
            Self::Relative => "relative",
        }
    }
}

impl HeadFault {
    /// The fault's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AuthorityMismatch => "authority_mismatch",
            Self::Body => "body",
            Self::ConnectionField => "connection_field",
            Self::Framing => "framing",
            Self::HostMissing => "host_missing",
            Self::HostSyntax => "host_syntax",
            Self::MaxForwards => "max_forwards",
            Self::OriginalRequest => "original_request",
            Self::RepeatedField => "repeated_field",
            Self::Scheme => "scheme",
            Self::TransferEncoding => "transfer_encoding",
            Self::Upgrade => "upgrade",
            Self::Version => "version",
        }
    }
}

impl PasswordFault {
    /// The fault's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Breached => "password_breached",
            Self::Common => "password_common",
            Self::TooLong => "password_too_long",
            Self::TooShort => "password_too_short",
        }
    }

    /// What whoever chose it should do.
    const fn detail(self) -> &'static str {
        match self {
            Self::Breached => {
                "The new password is in a list of stolen passwords; choose one that you use nowhere else."
            }
            Self::Common => {
                "The new password is easy to guess: it is made of common passwords, sequences, or names of yours or of this site; choose another."
            }
            Self::TooLong => "The password is too long; it may have 256 characters and 1024 bytes.",
            Self::TooShort => {
                "The new password is too short; use more characters, several words for example."
            }
        }
    }
}

impl ClaimFault {
    /// The fault's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audience => "audience",
            Self::Claim => "claim",
            Self::Issuer => "issuer",
            Self::Unprintable => "unprintable",
        }
    }
}

impl TokenFault {
    /// The fault's name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Algorithm => "algorithm",
            Self::Audience => "audience",
            Self::ClaimType => "claim_type",
            Self::CriticalHeader => "critical_header",
            Self::ExpiryMissing => "expiry_missing",
            Self::Header => "header",
            Self::Inactive => "inactive",
            Self::IssuedInFuture => "issued_in_future",
            Self::Issuer => "issuer",
            Self::KeyUnknown => "key_unknown",
            Self::NotYetValid => "not_yet_valid",
            Self::Payload => "payload",
            Self::Revoked => "revoked",
            Self::Scheme => "scheme",
            Self::Segments => "segments",
            Self::Signature => "signature",
            Self::Subject => "subject",
            Self::TooLong => "too_long",
            Self::Type => "type",
        }
    }
}
