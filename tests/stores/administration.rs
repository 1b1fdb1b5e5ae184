//! Administrators and invitations, with another node beside: AUTH-6, AUTH-7, AUTH-10.

use futures_util::future::join_all;
use portcullis::store::{
    Act, Acted, Beyond, Invite, NewInvite, NewMail, PasswordHash, Redemption, Store, StoreError,
    User, UserChange, UserEdit, UserKey, administration::INVITES_MAX,
};

use crate::place::{NOW, Place, TIMES, at, session, user};

crate::on_both!(
    a_refused_edit_changes_nothing_and_a_display_name_ends_no_session,
    auth_10_nobody_removes_the_last_administrator_but_by_force,
    auth_10_of_administrators_who_remove_each_other_on_two_nodes_one_stays,
    auth_10_whoever_is_no_administrator_changes_nothing,
    auth_6_a_pending_account_has_no_session_and_administers_nothing,
    auth_7_an_invitation_is_good_for_its_address_its_time_and_its_kind,
    auth_7_an_invitation_outlives_a_taken_name,
    auth_7_of_many_who_present_a_bootstrap_secret_on_two_nodes_one_gets_it,
    auth_7_of_many_who_present_an_invitation_on_two_nodes_one_gets_it,
    invitations_are_bounded_on_two_nodes_and_erased_when_over,
    rst_2_an_invitation_gets_another_secret_while_it_is_good,
    rst_4_an_invitation_without_room_for_its_mail_is_not_made,
    store_4_hostile_values_name_no_account_and_no_invitation,
);

fn admin(name: &str) -> User {
    let mut user = user(name);
    user.roles = vec!["admin".into()];
    user
}

fn invite(number: u32, bootstrap: bool) -> NewInvite {
    let mut digest = [0; 32];
    digest[..4].copy_from_slice(&number.to_be_bytes());
    NewInvite {
        invite: Invite {
            id: format!("i{number}").into(),
            bootstrap,
            roles: vec![if bootstrap { "admin" } else { "guest" }.into()],
            email: None,
            created_by: None,
            created_at: NOW,
            expires_at: NOW + 100,
        },
        digest,
        mail: None,
    }
}

fn redemption(new: &NewInvite, name: &str) -> Redemption {
    Redemption {
        digest: new.digest,
        bootstrap: new.invite.bootstrap,
        user: user(name),
        now: NOW,
    }
}

fn roles(id: &str, roles: &[&str]) -> Act {
    let edit = UserEdit {
        roles: Some(roles.iter().map(|role| Box::from(*role)).collect()),
        ..UserEdit::default()
    };
    Act::EditUser(id.into(), Box::new(edit))
}

async fn act(store: &dyn Store, actor: &str, act: Act) -> Acted {
    let done = store.administer(Some(actor.into()), act, TIMES).await;
    done.unwrap()
}

async fn auth_10_of_administrators_who_remove_each_other_on_two_nodes_one_stays(place: Place) {
    let (one, two) = (place.node(), place.node());
    for round in 0..8 {
        let (ann, bob) = (format!("ann{round}"), format!("bob{round}"));
        for name in [&ann, &bob] {
            one.add_user(admin(name)).await.unwrap();
        }
        let (ann, bob) = (format!("id-{ann}"), format!("id-{bob}"));
        let acts = match round % 3 {
            0 => [roles(&bob, &[]), roles(&ann, &["clerk"])],
            1 => [
                Act::DeleteUser((*bob).into()),
                Act::DeleteUser((*ann).into()),
            ],
            _ => [roles(&ann, &[]), roles(&bob, &[])], // each gives up his own
        };
        let [first, second] = acts;
        let (first, second) = tokio::join!(act(&*one, &ann, first), act(&*two, &bob, second));
        let done = [&first, &second].map(|acted| matches!(acted, Acted::Done(_)));
        assert!(done[0] != done[1], "{first:?} {second:?}");
        assert!(two.has_admin().await.unwrap());
        for id in [ann, bob] {
            let deleted = one.change_user((*id).into(), UserChange::Delete, TIMES);
            deleted.await.unwrap();
        }
        assert!(!one.has_admin().await.unwrap());
    }
}

async fn auth_10_nobody_removes_the_last_administrator_but_by_force(place: Place) {
    let store = place.node();
    store.add_user(admin("ann")).await.unwrap();
    let mut shut = admin("shut");
    shut.disabled = true;
    store.add_user(shut).await.unwrap();
    let mut almost = user("almost");
    almost.roles = ["administrator", "xadmin", "admin2", "ADMIN"]
        .map(Box::from)
        .into();
    store.add_user(almost).await.unwrap();
    let disable = UserEdit {
        disabled: Some(true),
        ..UserEdit::default()
    };
    for removal in [
        roles("id-ann", &["clerk"]),
        Act::EditUser("id-ann".into(), Box::new(disable)),
        Act::DeleteUser("id-ann".into()),
    ] {
        let actor = act(&*store, "id-ann", removal.clone()).await;
        assert_eq!(actor, Acted::LastAdmin);
        let command = store.administer(None, removal, TIMES).await;
        assert_eq!(command, Ok(Acted::LastAdmin));
    }
    assert!(store.has_admin().await.unwrap());
    let kept = act(&*store, "id-ann", roles("id-ann", &["clerk", "admin"])).await;
    assert_eq!(kept, Acted::Done(Vec::new()));
    let command = store.administer(None, roles("id-almost", &[]), TIMES).await;
    assert_eq!(command, Ok(Acted::Done(Vec::new())));
    let forced = store.change_user("id-ann".into(), UserChange::Roles(Vec::new()), TIMES);
    assert_eq!(forced.await, Ok(Some(Vec::new())));
    assert!(!store.has_admin().await.unwrap());
}

async fn auth_10_whoever_is_no_administrator_changes_nothing(place: Place) {
    let store = place.node();
    store.add_user(admin("ann")).await.unwrap();
    store.add_user(user("bob")).await.unwrap();
    let mut shut = admin("shut");
    shut.disabled = true;
    store.add_user(shut).await.unwrap();
    for actor in ["id-bob", "id-shut", "nobody", "", "id-ann\0"] {
        for acts in [
            Act::AddInvite(Box::new(invite(1, false))),
            Act::AddUser(Box::new(user("eve"))),
            Act::DeleteUser("id-ann".into()),
            roles("id-bob", &["admin"]),
            Act::EndSessions("id-ann".into()),
            Act::RevokeInvite("i1".into()),
        ] {
            assert_eq!(act(&*store, actor, acts).await, Acted::Forbidden);
        }
    }
    assert_eq!(store.users("".into(), 10).await.unwrap().len(), 3);
    assert!(store.invites(NOW).await.unwrap().is_empty());
    let bob = store.find_user(UserKey::Id("id-bob".into())).await.unwrap();
    assert_eq!(bob.unwrap().epoch, 1);
}

async fn a_refused_edit_changes_nothing_and_a_display_name_ends_no_session(place: Place) {
    let store = place.node();
    for user in [admin("ann"), user("bob")] {
        store.add_user(user).await.unwrap();
    }
    store
        .add_session(session(&user("bob"), "s", 1))
        .await
        .unwrap();
    let edit = async |edit: UserEdit| {
        let act = Act::EditUser("id-bob".into(), Box::new(edit));
        store.administer(Some("id-ann".into()), act, TIMES).await
    };
    let bob = async || {
        let bob = store.find_user(UserKey::Id("id-bob".into())).await;
        bob.unwrap().unwrap()
    };
    let taken = UserEdit {
        email: Some("ann@example.com".into()),
        roles: Some(vec!["admin".into()]),
        ..UserEdit::default()
    };
    assert_eq!(edit(taken).await, Err(StoreError::Conflict));
    assert_eq!(format!("{:?}", bob().await), format!("{:?}", user("bob")));
    for name in [Some("Bob".into()), None] {
        let named = UserEdit {
            name: Some(name.clone()),
            ..UserEdit::default()
        };
        assert_eq!(edit(named).await, Ok(Acted::Done(Vec::new())));
        assert_eq!((bob().await.name, bob().await.epoch), (name, 1));
    }
    let all = UserEdit {
        email: Some("robert@example.com".into()),
        name: Some(Some("Robert".into())),
        password: Some(PasswordHash("new".into())),
        roles: Some(Vec::new()),
        disabled: Some(true),
        notice: None,
    };
    assert_eq!(edit(all).await, Ok(Acted::Done(vec!["s".into()])));
    let bob = bob().await;
    assert_eq!(bob.email.as_deref(), Some("robert@example.com"));
    assert_eq!(bob.password, Some(PasswordHash("new".into())));
    assert!(bob.disabled && bob.roles.is_empty() && bob.epoch == 2);
    assert_eq!(&*store.revocations_after(0).await.unwrap()[0].key, "s");
}

async fn auth_6_a_pending_account_has_no_session_and_administers_nothing(place: Place) {
    let store = place.node();
    let mut ann = admin("ann");
    ann.pending = true;
    store.add_user(ann.clone()).await.unwrap();
    let found = store.find_user(UserKey::Id(ann.id.clone())).await.unwrap();
    assert!(found.unwrap().pending);
    let made = store.add_session(session(&ann, "s1", 1)).await.unwrap();
    assert!(made.is_none());
    assert!(!store.has_admin().await.unwrap());
    let ending = Act::EndSessions(ann.id.clone());
    assert_eq!(act(&*store, &ann.id, ending).await, Acted::Forbidden);
}

async fn auth_7_of_many_who_present_an_invitation_on_two_nodes_one_gets_it(place: Place) {
    let nodes = [place.node(), place.node()];
    let new = invite(1, false);
    let made = Act::AddInvite(Box::new(new.clone()));
    nodes[0].administer(None, made, TIMES).await.unwrap();
    let tries = (0..12).map(|index: usize| {
        let redemption = redemption(&new, &format!("u{index}"));
        nodes[index % 2].redeem(redemption)
    });
    let made = join_all(tries).await;
    let made: Vec<_> = made.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(*made[0].roles, ["guest".into()], "its roles, not one's own");
    let all = nodes[1].users("".into(), 100).await.unwrap();
    assert_eq!(format!("{all:?}"), format!("{made:?}"));
    assert!(nodes[1].invites(NOW).await.unwrap().is_empty());
}

async fn auth_7_of_many_who_present_a_bootstrap_secret_on_two_nodes_one_gets_it(place: Place) {
    let nodes = [place.node(), place.node()];
    let (old, new) = (invite(1, true), invite(2, true));
    assert!(nodes[0].add_bootstrap(old.clone()).await.unwrap());
    assert!(nodes[1].add_bootstrap(new.clone()).await.unwrap());
    let replaced = nodes[0].redeem(redemption(&old, "eve")).await.unwrap();
    assert!(replaced.is_none());
    assert!(nodes[0].invites(NOW).await.unwrap().is_empty(), "not shown");
    let found = nodes[0].find_invite(new.digest, true, NOW).await.unwrap();
    assert!(found.is_some());
    let tries = (0..8).map(|index: usize| {
        let redemption = redemption(&new, &format!("u{index}"));
        nodes[index % 2].redeem(redemption)
    });
    let made = join_all(tries).await;
    let made: Vec<_> = made.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert!(nodes[1].has_admin().await.unwrap());
    assert!(!nodes[1].add_bootstrap(invite(3, true)).await.unwrap());
    // One that is left over from before is worth nothing beside an administrator.
    nodes[0]
        .change_user(made[0].id.clone(), UserChange::Roles(Vec::new()), TIMES)
        .await
        .unwrap();
    assert!(nodes[1].add_bootstrap(invite(3, true)).await.unwrap());
    nodes[0].add_user(admin("ann")).await.unwrap();
    let late = nodes[1].redeem(redemption(&invite(3, true), "eve")).await;
    assert!(late.unwrap().is_none());
    let found = nodes[1].find_invite(invite(3, true).digest, true, NOW);
    assert!(found.await.unwrap().is_none());
}

async fn auth_7_an_invitation_is_good_for_its_address_its_time_and_its_kind(place: Place) {
    let store = place.node();
    let mut new = invite(1, false);
    new.invite.email = Some("ann@example.com".into());
    new.invite.created_by = Some("id-root".into());
    let made = Act::AddInvite(Box::new(new.clone()));
    store.administer(None, made, TIMES).await.unwrap();
    let shown = store.invites(NOW + 99).await.unwrap();
    assert_eq!(format!("{shown:?}"), format!("[{:?}]", new.invite));
    assert!(store.invites(NOW + 100).await.unwrap().is_empty());
    let mut late = redemption(&new, "ann");
    late.now = NOW + 100;
    let mut kind = redemption(&new, "ann");
    kind.bootstrap = true;
    let mut nowhere = redemption(&new, "ann");
    nowhere.user.email = None;
    let other = redemption(&invite(2, false), "ann");
    for bad in [redemption(&new, "bob"), late, kind, nowhere, other] {
        assert!(store.redeem(bad).await.unwrap().is_none());
    }
    let found = store.find_invite(new.digest, false, NOW).await.unwrap();
    assert!(found.is_some(), "none of these consumed it");
    let ann = store.redeem(redemption(&new, "ann")).await.unwrap();
    assert_eq!(&*ann.unwrap().username, "ann");
}

async fn auth_7_an_invitation_outlives_a_taken_name(place: Place) {
    let store = place.node();
    store.add_user(user("ann")).await.unwrap();
    let new = invite(1, false);
    let made = Act::AddInvite(Box::new(new.clone()));
    store.administer(None, made, TIMES).await.unwrap();
    let taken = store.redeem(redemption(&new, "ann")).await;
    assert_eq!(taken.map(drop), Err(StoreError::Conflict));
    assert!(
        store
            .redeem(redemption(&new, "bob"))
            .await
            .unwrap()
            .is_some()
    );
    let twice = store.redeem(redemption(&new, "carl")).await;
    assert!(twice.unwrap().is_none());
}

async fn invitations_are_bounded_on_two_nodes_and_erased_when_over(place: Place) {
    let nodes = [place.node(), place.node()];
    let add = |number: u32| {
        let made = Act::AddInvite(Box::new(invite(number, false)));
        nodes[usize::from(number.is_multiple_of(2))].administer(None, made, TIMES)
    };
    for number in 0..INVITES_MAX - 2 {
        assert_eq!(add(number).await, Ok(Acted::Done(Vec::new())));
    }
    let last = join_all((INVITES_MAX..INVITES_MAX + 10).map(add)).await;
    let (done, full): (Vec<_>, Vec<_>) = last
        .into_iter()
        .map(Result::unwrap)
        .partition(|acted| matches!(acted, Acted::Done(_)));
    assert_eq!((done.len(), full.len()), (2, 8));
    assert!(full.iter().all(|acted| *acted == Acted::Full));
    let taken_back = Act::RevokeInvite("i1".into());
    let taken_back = nodes[1].administer(None, taken_back, TIMES).await;
    assert_eq!(taken_back, Ok(Acted::Done(Vec::new())));
    assert_eq!(add(5000).await, Ok(Acted::Done(Vec::new())));
    assert_eq!(nodes[0].purge(TIMES).await, Ok(0));
    while nodes[0].purge(at(NOW + 100)).await.unwrap() > 0 {}
    assert_eq!(place.number("SELECT count(*) FROM invites").await, 0);
}

async fn rst_2_an_invitation_gets_another_secret_while_it_is_good(place: Place) {
    let (store, other) = (place.node(), place.node());
    let (new, secret) = (invite(1, false), invite(1, true));
    let made = Act::AddInvite(Box::new(new.clone()));
    let done = store.administer(None, made, TIMES).await;
    assert_eq!(done, Ok(Acted::Done(Vec::new())));
    let renew = |id: &str, now| other.renew_invite(id.into(), [9; 32], now);
    for (id, now) in [("i2", NOW), ("", NOW), ("i1", NOW + 100)] {
        assert!(renew(id, now).await.unwrap().is_none(), "{id} {now}");
    }
    let renewed = renew("i1", NOW + 99).await.unwrap().unwrap();
    assert_eq!(format!("{renewed:?}"), format!("{:?}", new.invite));
    let old = store.redeem(redemption(&new, "ann")).await;
    assert!(old.unwrap().is_none());
    let mut later = redemption(&new, "ann");
    later.digest = [9; 32];
    assert!(other.redeem(later).await.unwrap().is_some());
    assert!(renew("i1", NOW).await.unwrap().is_none(), "used");
    // The first administrator's secret is told by no mail.
    store
        .change_user("id-ann".into(), UserChange::Delete, TIMES)
        .await
        .unwrap();
    assert!(store.add_bootstrap(secret.clone()).await.unwrap());
    assert!(renew(&secret.invite.id, NOW).await.unwrap().is_none());
}

async fn rst_4_an_invitation_without_room_for_its_mail_is_not_made(place: Place) {
    let nodes = [place.node(), place.node()];
    let add = |number: u32| {
        let mut new = invite(number, false);
        new.mail = Some(NewMail {
            message_id: new.invite.id.clone(),
            purpose: "test",
            recipient: "bob@example.com".into(),
            username: None,
            client: None,
            beyond: Beyond::Drop,
            total: (1000, std::time::Duration::from_secs(3600)),
        });
        let made = Act::AddInvite(Box::new(new));
        nodes[usize::from(number.is_multiple_of(2))].administer(None, made, TIMES)
    };
    let done = join_all((0..8).map(add)).await;
    let (done, refused): (Vec<_>, Vec<_>) = done
        .into_iter()
        .map(Result::unwrap)
        .partition(|acted| matches!(acted, Acted::Done(_)));
    assert_eq!((done.len(), refused.len()), (3, 5));
    assert!(refused.iter().all(|acted| *acted == Acted::NoMail));
    for table in ["invites", "mail"] {
        let rows = format!("SELECT count(*) FROM {table}");
        assert_eq!(place.number(&rows).await, 3, "{table}");
    }
}

async fn store_4_hostile_values_name_no_account_and_no_invitation(place: Place) {
    let store = place.node();
    store.add_user(admin("ann")).await.unwrap();
    let made = Act::AddInvite(Box::new(invite(1, false)));
    assert_eq!(act(&*store, "id-ann", made).await, Acted::Done(Vec::new()));
    for hostile in [
        "' OR '1'='1",
        "id-ann\0",
        "%",
        "$1",
        "'; DROP TABLE users; --",
    ] {
        let id = || Box::<str>::from(hostile);
        for acts in [
            Act::DeleteUser(id()),
            roles(hostile, &["admin"]),
            Act::EndSessions(id()),
            Act::RevokeInvite(id()),
        ] {
            assert_eq!(act(&*store, "id-ann", acts).await, Acted::NotFound);
        }
    }
    assert_eq!(store.users("".into(), 10).await.unwrap().len(), 1);
    assert_eq!(store.invites(NOW).await.unwrap().len(), 1);
}
