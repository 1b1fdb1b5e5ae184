//! The pure decisions: who the client is, which route a request takes, whether its caller may, and which headers leave.
//!
//! Nothing here performs I/O, reads a clock, or knows hyper, tokio, TOML or JSON Web Tokens; the inputs are `http` types
//! and plain values, so every decision is tested without a socket. `tests/tidy.rs` keeps it so.

pub mod addresses;
pub mod allowance;
pub mod authorize;
pub mod browser;
pub mod client_ip;
pub mod cors;
mod forwarded;
pub mod head;
pub mod headers;
pub mod identity;
pub mod interim;
pub mod max_forwards;
pub mod original;
pub mod path;
pub mod redirect;
pub mod rejection;
pub mod route;
pub mod tls;
pub mod upgrade;

pub use addresses::Addresses;
pub use allowance::{Allowance, Unlimited};
pub use authorize::{Access, Caller, Permit, Rule, authorize};
pub use browser::Browsers;
pub use client_ip::{ClientIp, ForwardedHeaders, PeerIp, TrustedProxies};
pub use cors::{Cors, Origins};
pub use head::Head;
pub use headers::{
    Direction, Forwarding, HeaderEdits, HeaderPolicy, IdentityHeaders, TraceField, TraceParent,
    Trailers,
};
pub use identity::{Claims, Identity};
pub use original::original_request;
pub use path::NormalPath;
pub use redirect::{RedirectTarget, RedirectTargets};
pub use rejection::{HeadFault, PasswordFault, PathFault, Rejection, TokenFault};
pub use route::{
    HostPattern, PathPattern, Route, RouteConflict, Routes, Streams, Target, UpstreamId,
};
pub use tls::{TlsPolicies, TlsPolicyId};
