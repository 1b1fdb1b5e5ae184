//! Every word of the pages, in one place: a translation is another table of this type.

/// The words of the pages.
#[derive(Debug)]
pub struct Texts {
    /// `lang` of the pages (BCP 47).
    pub language: &'static str,
    /// What a reader quotes to the operator: before the code.
    pub code: &'static str,
    /// Before the id of the request.
    pub request_id: &'static str,
    /// The title of the login page, and its button.
    pub sign_in: &'static str,
    /// The label of the first field.
    pub username: &'static str,
    /// The label of the second.
    pub password: &'static str,
    /// Name or password is wrong, which of them is not said.
    pub wrong: &'static str,
    /// Too many attempts: before the seconds.
    pub limited_before: &'static str,
    /// After them.
    pub limited_after: &'static str,
    /// The gateway has too much to do.
    pub overloaded: &'static str,
    /// Something does not work.
    pub unavailable: &'static str,
    /// The form was not filled in.
    pub unfit: &'static str,
    /// The title of the page between.
    pub renewing: &'static str,
    /// What it says.
    pub renewing_text: &'static str,
    /// Its link, where a browser does not go on by itself.
    pub go_on: &'static str,
    /// Renewed again and again: the title.
    pub looping: &'static str,
    /// What may be done about it.
    pub looping_text: &'static str,
    /// The title of the logout page, and its button.
    pub sign_out: &'static str,
    /// What it asks.
    pub sign_out_text: &'static str,
    /// Signed out: the title.
    pub signed_out: &'static str,
    /// What it says.
    pub signed_out_text: &'static str,
    /// The link to the login page.
    pub sign_in_again: &'static str,
    /// The link back from the logout page.
    pub stay: &'static str,
    /// The title of the account page.
    pub account: &'static str,
    /// Labels of what is known of the caller.
    pub email: &'static str,
    /// The name that one is known by.
    pub user: &'static str,
    /// The display name.
    pub name: &'static str,
    /// The roles.
    pub roles: &'static str,
    /// None of them.
    pub none: &'static str,
    /// The heading of the list.
    pub sessions: &'static str,
    /// The session of this browser.
    pub current: &'static str,
    /// Before the address.
    pub address: &'static str,
    /// Before the time of the login.
    pub begun: &'static str,
    /// Before the time of the last use.
    pub last_used: &'static str,
    /// The button that ends one.
    pub end: &'static str,
    /// The button that ends all.
    pub end_all: &'static str,
    /// What that does.
    pub end_all_text: &'static str,
}

/// The pages in English.
pub const ENGLISH: Texts = Texts {
    language: "en",
    code: "Code",
    request_id: "Request",
    sign_in: "Sign in",
    username: "User name or e-mail address",
    password: "Password",
    wrong: "User name or password is wrong.",
    limited_before: "Too many attempts. Try again in",
    limited_after: "seconds.",
    overloaded: "Too many people sign in at the moment. Try again in a few seconds.",
    unavailable: "Signing in does not work at the moment. Try again later.",
    unfit: "Fill in both fields.",
    renewing: "One moment",
    renewing_text: "You are being signed in.",
    go_on: "Go on",
    looping: "Signing in goes round in circles",
    looping_text: "This browser was signed in several times within seconds, and each time the page asked for it again. \
        It may refuse cookies of this site, or its clock may be wrong. If neither is so, tell the operator of the site.",
    sign_out: "Sign out",
    sign_out_text: "Do you want to sign out of this site in this browser?",
    signed_out: "You are signed out",
    signed_out_text: "The session of this browser has ended.",
    sign_in_again: "Sign in again",
    stay: "Stay signed in",
    account: "Your account",
    email: "E-mail",
    user: "User name",
    name: "Name",
    roles: "Roles",
    none: "none",
    sessions: "Where you are signed in",
    current: "this browser",
    address: "Address",
    begun: "Signed in",
    last_used: "Last used",
    end: "End",
    end_all: "Sign out everywhere",
    end_all_text: "Ends every session in this list, this one too.",
};
