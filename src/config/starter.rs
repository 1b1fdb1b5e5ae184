//! The configuration that `portcullis init` writes: short, working, and safe as it is.

use toml::Value;

/// Writes a configuration with one authenticated route to an upstream, accounts, and a development certificate.
#[must_use]
pub fn starter(upstream: &str) -> String {
    TEMPLATE.replace("{upstream}", &Value::from(upstream).to_string())
}

const TEMPLATE: &str = r#"#:schema ./gateway.schema.json
# Portcullis. `portcullis check` names every mistake and prints who may do what.
version = 1

[server]
listen = ["127.0.0.1:8443"]              # "0.0.0.0:8443" once others may use it
admin_listen = "127.0.0.1:9901"          # health and metrics; keep it from the public
public_url = "https://localhost:8443"    # what clients call this gateway

[tls]
certificates = [{ cert = "certs/dev.crt", key = "certs/dev.key" }]
development = true                       # self-signed; take it out and give a real pair before others use it

# The backend. Its Host, timeouts and limits have defaults.
[[upstream]]
name = "app"
servers = [{upstream}]

# Every path needs a verified caller, whose name the backend reads in X-Forwarded-User.
[[route]]
name = "app"
path_prefix = "/"
upstream = "app"
access = "authenticated"                 # or "optional", "public"
#require = { roles = ["staff"] }

# A part that needs no login, for a load balancer.
#[[route]]
#name = "health"
#path = "/healthz"
#methods = ["GET", "HEAD"]
#upstream = "app"
#access = "public"

# Accounts of the gateway's own: POST /auth/login and the rest. `portcullis user add` makes one.
[accounts]
store = "sqlite:data/portcullis.db"
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Severity, parse, units};
    use std::path::Path;

    #[test]
    fn what_init_writes_is_good_with_and_without_its_examples() {
        let root = tempfile::tempdir().unwrap();
        let text = starter("http://127.0.0.1:9000");
        let config = parse(&text, Path::new("gateway.toml"), root.path()).unwrap();
        assert_eq!(config.routes.len(), 1);
        let all = text.replace("\n#[[", "\n[[");
        let all: Vec<&str> = all
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with([' ', ':']) => rest,
                _ => line,
            })
            .collect();
        let config = parse(&all.join("\n"), Path::new("gateway.toml"), root.path()).unwrap();
        assert_eq!(config.routes.len(), 2);
        assert_eq!(config.routes[0].rule.roles.len(), 1);
        assert_eq!(units::show_size(config.server.body_bytes), "10MiB");
    }

    #[test]
    fn an_upstream_cannot_leave_its_quotes() {
        let root = tempfile::tempdir().unwrap();
        let text = starter("http://x\"]\n[[route]]\naccess = \"public\"#");
        let report = parse(&text, Path::new("gateway.toml"), root.path()).unwrap_err();
        let mut problems = report.problems().iter();
        let error = problems
            .find(|problem| problem.severity == Severity::Error)
            .unwrap();
        assert_eq!(error.key, "upstream[0].servers[0]", "{report}");
        assert!(problems.next().is_none(), "{report}");
    }
}
