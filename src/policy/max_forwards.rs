//! `Max-Forwards` of an `OPTIONS` request: how many more hops it may take (RFC 9110 §7.6.2, MSG-14).

use http::{
    Method,
    header::{HeaderValue, MAX_FORWARDS},
    request::Parts,
};

use super::rejection::{HeadFault, Rejection};

/// What a route without a list of methods takes, as the gateway tells it.
const USUAL_METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Takes one hop away, and says whether none was left: then the request ends here and the gateway answers it. Other methods
/// have no hops to count; TRACE is refused before.
///
/// # Errors
/// [`Rejection::BadRequest`] for more than one field and for anything but digits.
pub fn take_hop(request: &mut Parts) -> Result<bool, Rejection> {
    if request.method != Method::OPTIONS {
        return Ok(false);
    }
    let mut fields = request.headers.get_all(MAX_FORWARDS).iter();
    let Some(field) = fields.next() else {
        return Ok(false);
    };
    let digits = field.as_bytes();
    if fields.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::BadRequest(HeadFault::MaxForwards));
    }
    // More than the type holds is the most that it holds, as the standard has it.
    let hops = field.to_str().ok().and_then(|text| text.parse().ok());
    let Some(left) = hops.unwrap_or(u64::MAX).checked_sub(1) else {
        return Ok(true);
    };
    let field = HeaderValue::from(left);
    request.headers.insert(MAX_FORWARDS, field);
    Ok(false)
}

/// The value of `Allow` in that answer. `methods` are those that the route names; none: it takes any.
///
/// # Errors
/// When a method is none that fits a header, which the configuration has seen to.
pub fn allow(methods: &[Method]) -> Result<HeaderValue, Rejection> {
    let methods = match methods {
        [] => &USUAL_METHODS[..],
        named => named,
    };
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    HeaderValue::from_str(&names.join(", ")).map_err(|_| Rejection::Internal)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn hop(method: Method, fields: &[&'static str]) -> (Result<bool, Rejection>, Vec<String>) {
        let (mut request, ()) = Request::new(()).into_parts();
        request.method = method;
        for field in fields {
            let value = HeaderValue::from_static(field);
            request.headers.append(MAX_FORWARDS, value);
        }
        let is_last = take_hop(&mut request);
        let left = request.headers.get_all(MAX_FORWARDS).iter();
        let left = left.map(|field| field.to_str().unwrap().to_owned());
        (is_last, left.collect())
    }

    #[test]
    fn msg_14_each_hop_takes_one_away_and_the_last_one_answers() {
        for (before, after) in [
            ("1", "0"),
            ("10", "9"),
            ("007", "6"),
            ("18446744073709551615", "18446744073709551614"),
            ("99999999999999999999999", "18446744073709551614"),
        ] {
            let (is_last, left) = hop(Method::OPTIONS, &[before]);
            assert_eq!((is_last, left), (Ok(false), vec![after.to_owned()]));
        }
        assert_eq!(hop(Method::OPTIONS, &["0"]).0, Ok(true));
        assert_eq!(hop(Method::OPTIONS, &["000"]).0, Ok(true));
        assert_eq!(hop(Method::OPTIONS, &[]), (Ok(false), vec![]));
    }

    #[test]
    fn msg_14_what_is_no_number_is_refused() {
        let refused = Err(Rejection::BadRequest(HeadFault::MaxForwards));
        for field in ["", "-1", "+1", "1.0", "0x1", "1, 2", "one", "1 1"] {
            assert_eq!(hop(Method::OPTIONS, &[field]).0, refused, "{field:?}");
        }
        assert_eq!(hop(Method::OPTIONS, &["1", "1"]).0, refused);
    }

    #[test]
    fn msg_14_other_methods_have_no_hops_to_count() {
        for field in ["0", "1", "x"] {
            let (is_last, left) = hop(Method::GET, &[field]);
            assert_eq!((is_last, left), (Ok(false), vec![field.to_owned()]));
        }
    }

    #[test]
    fn msg_14_the_answer_names_the_routes_methods() {
        let named = allow(&[Method::GET, Method::OPTIONS]).unwrap();
        assert_eq!(named, "GET, OPTIONS");
        assert!(allow(&[]).unwrap().to_str().unwrap().contains("OPTIONS"));
    }
}
