//! May a page of another origin use a route? The rules of the Fetch standard's CORS protocol, answered by the gateway.

use http::{
    HeaderMap, Method, StatusCode,
    header::{self, HeaderName, HeaderValue},
    request::Parts,
};

/// What a route grants to pages of other origins.
#[derive(Debug, Clone)]
pub struct Cors {
    /// Whose pages may.
    pub origins: Origins,
    /// Whether their requests may bear cookies and the like; never with [`Origins::Any`] (CFG-1).
    pub credentials: bool,
    /// The methods that a preflight is granted.
    pub methods: Vec<Method>,
    /// The methods as a field.
    pub methods_line: HeaderValue,
    /// The request headers that a preflight is granted, in lower case.
    pub headers: Vec<HeaderName>,
    /// How long a browser may remember a preflight, in seconds.
    pub max_age: u64,
}

/// Origins of pages.
#[derive(Debug, Clone)]
pub enum Origins {
    /// All: `*`.
    Any,
    /// These, compared byte for byte.
    Listed(Vec<HeaderValue>),
}

impl Cors {
    /// Whether a request asks what another may do: `OPTIONS` with both fields that only a browser's preflight has.
    #[must_use]
    pub fn is_preflight(request: &Parts) -> bool {
        request.method == Method::OPTIONS
            && request.headers.contains_key(header::ORIGIN)
            && request
                .headers
                .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// What a preflight is told, with status 204; `None` where its origin or its method is not granted.
    #[must_use]
    pub fn preflight(&self, request: &HeaderMap) -> Option<(StatusCode, HeaderMap)> {
        let origin = self.granted(request)?;
        let method = single(request, &header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if !self
            .methods
            .iter()
            .any(|one| one.as_str().as_bytes() == method.as_bytes())
        {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(8);
        self.grant(&mut headers, origin);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            self.methods_line.clone(),
        );
        for name in &self.headers {
            headers.append(header::ACCESS_CONTROL_ALLOW_HEADERS, name.clone().into());
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.into());
        Some((StatusCode::NO_CONTENT, headers))
    }

    /// The value of `Access-Control-Allow-Origin` for a request; `None` where its origin is not granted.
    #[must_use]
    pub fn granted(&self, request: &HeaderMap) -> Option<HeaderValue> {
        let origin = single(request, &header::ORIGIN)?;
        match &self.origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(list) => list.iter().find(|one| *one == origin).cloned(),
        }
    }

    /// Makes an answer readable for a granted origin and for nobody else: what the upstream said of it is taken out.
    pub fn finish(&self, headers: &mut HeaderMap, granted: Option<HeaderValue>) {
        let theirs: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .cloned()
            .collect();
        for name in theirs {
            headers.remove(name);
        }
        match granted {
            Some(origin) => self.grant(headers, origin),
            None => self.vary(headers),
        }
    }

    fn grant(&self, headers: &mut HeaderMap, origin: HeaderValue) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        self.vary(headers);
    }

    /// Caches must not give one origin's answer to another.
    fn vary(&self, headers: &mut HeaderMap) {
        if matches!(self.origins, Origins::Listed(_)) {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
}

/// A field that is there exactly once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}
