//! HDR-5: how claims become values.

use proptest::prelude::*;

use super::*;

#[test]
fn hdr_5_control_characters_refuse_the_request() {
    for multi in [
        MultiValue::Comma,
        MultiValue::Json,
        MultiValue::Repeat,
        MultiValue::Space,
    ] {
        let templates = templates(Preset::Portcullis, multi);
        for bad in [
            "a\r\nx: y",
            "\n",
            "a\u{0}",
            "\t",
            "\u{7f}",
            "\u{9f}",
            "a\u{85}b",
            "\u{1b}[31m",
        ] {
            let unprintable = Rejection::ClaimMismatch(ClaimFault::Unprintable);
            for claims in [
                Claims {
                    user: Some(bad.into()),
                    ..claims()
                },
                Claims {
                    email: Some(bad.into()),
                    ..claims()
                },
                Claims {
                    roles: vec!["a".into(), bad.into()],
                    ..claims()
                },
                Claims {
                    scopes: vec![bad.into()],
                    ..claims()
                },
                Claims {
                    all: json!({"tenant": bad}).as_object().cloned().unwrap(),
                    ..claims()
                },
                Claims {
                    all: json!({"tenant": ["a", bad]}).as_object().cloned().unwrap(),
                    ..claims()
                },
            ] {
                assert_eq!(
                    templates.render(&claims).map(|_| ()),
                    Err(unprintable.clone()),
                    "{bad:?}"
                );
            }
        }
    }
}

/// The groups header of these roles.
fn groups(multi: MultiValue, roles: &[&str]) -> Vec<String> {
    let templates = templates(Preset::Portcullis, multi);
    let policy = policy(&templates);
    let roles = roles.iter().map(|role| (*role).into()).collect();
    let headers =
        Case::new(&policy, identity(Claims { roles, ..claims() }, &templates)).prepare(&[]);
    all(&headers, "x-forwarded-groups")
}

#[test]
fn hdr_5_one_role_never_becomes_two_nor_another() {
    assert_eq!(
        groups(MultiValue::Comma, &["a,admin", "b"]),
        ["a%2Cadmin,b"]
    );
    assert_eq!(groups(MultiValue::Comma, &["a%2Cadmin"]), ["a%252Cadmin"]);
    assert_eq!(
        groups(MultiValue::Space, &["a admin", "b"]),
        ["a%20admin b"]
    );
    assert_eq!(
        groups(MultiValue::Json, &["a\",\"admin", "é"]),
        [r#"["a\",\"admin","\u00e9"]"#]
    );
    assert_eq!(
        groups(MultiValue::Repeat, &["a,admin", "b"]),
        ["a,admin", "b"]
    );
    // Servers trim the elements of a list.
    assert_eq!(
        groups(MultiValue::Comma, &["b", " admin", "admin ", "  "]),
        ["b,%20admin,admin%20,%20%20"]
    );
    assert_eq!(groups(MultiValue::Repeat, &[" admin"]), ["%20admin"]);
    assert_eq!(
        groups(MultiValue::Comma, &["\u{a0}admin\u{3000}"]),
        ["%C2%A0admin%E3%80%80"]
    );
    for multi in [
        MultiValue::Comma,
        MultiValue::Json,
        MultiValue::Repeat,
        MultiValue::Space,
    ] {
        assert_eq!(groups(multi, &[]), Vec::<String>::new());
        assert_eq!(groups(multi, &["", ""]), Vec::<String>::new());
    }
    assert_eq!(groups(MultiValue::Comma, &["", "a", ""]), ["a"]);
}

#[test]
fn hdr_5_a_name_is_not_trimmed_into_another() {
    let templates = templates(Preset::Portcullis, MultiValue::Comma);
    let policy = policy(&templates);
    for (user, want) in [
        (" admin", "%20admin"),
        ("admin ", "admin%20"),
        ("ad min", "ad min"),
        (" ", "%20"),
        ("é", "%C3%A9"),
        ("50%", "50%25"),
    ] {
        let caller = identity(
            Claims {
                user: Some(user.into()),
                ..claims()
            },
            &templates,
        );
        assert_eq!(
            all(&Case::new(&policy, caller).prepare(&[]), "x-forwarded-user"),
            [want]
        );
    }
}

#[test]
fn hdr_5_more_than_eight_kib_is_refused() {
    let templates = templates(Preset::None, MultiValue::Comma);
    let policy = policy(&templates);
    let claims = |bytes: usize| Claims {
        all: json!({"tenant": "t".repeat(bytes)})
            .as_object()
            .cloned()
            .unwrap(),
        ..claims()
    };
    assert!(templates.render(&claims(8192 - 8)).is_ok());
    assert!(templates.render(&claims(8192 - 7)).is_err());
    // Headers of the identity and of the request count together.
    let caller = identity(claims(8192 - 8), &templates);
    assert_eq!(
        Case::new(&policy, caller).try_prepare(&mut HeaderMap::new()),
        Err(Rejection::ClaimMismatch(ClaimFault::Unprintable))
    );
    assert!(
        Case::new(&policy, identity(claims(8000), &templates))
            .try_prepare(&mut HeaderMap::new())
            .is_ok()
    );
}

proptest! {
    #[test]
    fn hdr_5_any_claims_give_exactly_the_expected_fields(
        user in "\\PC{0,20}", email in ".{0,20}", roles in prop::collection::vec(".{0,8}", 0..5), tenant in "\\PC{0,10}",
    ) {
        let plain = Claims {
            user: Some(user.as_str().into()),
            email: Some(email.as_str().into()),
            roles: roles.iter().map(|role| role.as_str().into()).collect(),
            all: json!({"tenant": tenant}).as_object().cloned().unwrap(),
            ..claims()
        };
        for multi in [MultiValue::Comma, MultiValue::Json, MultiValue::Repeat, MultiValue::Space] {
            let templates = templates(Preset::Portcullis, multi);
            let control = [&user, &email, &tenant].into_iter().chain(&roles).any(|text| text.chars().any(char::is_control));
            match templates.render(&plain) {
                Err(refusal) => {
                    prop_assert!(control);
                    prop_assert_eq!(refusal.status(), 403);
                }
                Ok(headers) => {
                    prop_assert!(!control);
                    let roles: Vec<_> = roles.iter().filter(|role| !role.is_empty()).collect();
                    let groups: Vec<_> = headers.iter().filter(|(name, _)| name == "x-forwarded-groups").collect();
                    let lines = if multi == MultiValue::Repeat { roles.len() } else { usize::from(!roles.is_empty()) };
                    prop_assert_eq!(groups.len(), lines);
                    // User, e-mail, name, issuer, scopes and tenant.
                    prop_assert_eq!(headers.len() - lines, 6);
                    prop_assert!(headers.iter().all(|(_, value)| value.as_bytes().is_ascii()));
                    for (_, value) in &headers {
                        let text = value.to_str().unwrap();
                        prop_assert_eq!(text, text.trim());
                    }
                    if let (MultiValue::Comma, [(_, value)]) = (multi, &groups[..]) {
                        prop_assert_eq!(value.to_str().unwrap().split(',').count(), roles.len());
                    }
                    if let (MultiValue::Json, [(_, value)]) = (multi, &groups[..]) {
                        let read: Vec<String> = serde_json::from_str(value.to_str().unwrap()).unwrap();
                        prop_assert!(read.iter().eq(roles));
                    }
                }
            }
        }
    }
}

#[test]
fn templates_with_unknown_or_unclosed_places_are_refused() {
    for bad in [
        "{",
        "{user",
        "a{nobody}",
        "{claims.}",
        "{claims}",
        "{}",
        "{User}",
        "{ user }",
        "{user}{",
    ] {
        assert!(Template::parse(bad).is_err(), "{bad}");
    }
    for preset in PRESETS {
        for (name, template) in preset.headers() {
            assert!(Template::parse(template).is_ok() && PRESET_NAMES.contains(name));
        }
    }
}
