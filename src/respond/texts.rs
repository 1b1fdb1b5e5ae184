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
    /// The password was right, and the browser kept no cookie.
    pub cookies_refused: &'static str,
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
    /// To whoever sent a form without being signed in, or too late.
    pub not_signed_in: &'static str,
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
    /// The link to the login page, of who was not signed in.
    pub to_sign_in: &'static str,
    /// The title of the page that asks for a link to a new password, and the link to it.
    pub forgot: &'static str,
    /// What it says.
    pub forgot_text: &'static str,
    /// The label of its field.
    pub email_address: &'static str,
    /// Its button.
    pub forgot_button: &'static str,
    /// After a request for a mail: the title.
    pub look_into_mail: &'static str,
    /// What it says, whoever has the address.
    pub forgot_done: &'static str,
    /// The link to that page from a link that is dead.
    pub forgot_again: &'static str,
    /// The title of the page that a link to a new password leads to.
    pub reset: &'static str,
    /// What it says.
    pub reset_text: &'static str,
    /// The label of its field.
    pub new_password: &'static str,
    /// Its button.
    pub reset_button: &'static str,
    /// What a password needs: before the number.
    pub least_before: &'static str,
    /// After it.
    pub least_after: &'static str,
    /// A password is refused: it is in the operator's list of stolen ones.
    pub password_breached: &'static str,
    /// A password is refused: too easy.
    pub password_common: &'static str,
    /// Too long.
    pub password_too_long: &'static str,
    /// Too short.
    pub password_too_short: &'static str,
    /// A link in a mail is dead: the title.
    pub link_invalid: &'static str,
    /// What may be the case.
    pub link_invalid_text: &'static str,
    /// A password was changed.
    pub password_done: &'static str,
    /// The title of the page of registration, and the link to it.
    pub register: &'static str,
    /// Its button.
    pub register_button: &'static str,
    /// What a name may be made of.
    pub username_hint: &'static str,
    /// A name that is none.
    pub username_unfit: &'static str,
    /// A name that nobody gets who registers himself.
    pub username_of_site: &'static str,
    /// An address that is none.
    pub email_unfit: &'static str,
    /// The label of the field for an invitation.
    pub invite: &'static str,
    /// An invitation that is not good.
    pub invite_invalid: &'static str,
    /// Name or address are taken, where no mail tells.
    pub taken: &'static str,
    /// What is said after it, whether or not name and address are free.
    pub register_done: &'static str,
    /// The link to that page from a link that is dead.
    pub register_again: &'static str,
    /// An account was made.
    pub registered: &'static str,
    /// The title of the page that the link of a registration leads to.
    pub verify: &'static str,
    /// What it says.
    pub verify_text: &'static str,
    /// Its button.
    pub verify_button: &'static str,
    /// It was another.
    pub verify_wrong: &'static str,
    /// The heading of the form on the account page, and its button.
    pub change_password: &'static str,
    /// The label of its first field.
    pub current_password: &'static str,
    /// It was another.
    pub current_wrong: &'static str,
    /// What it does.
    pub change_password_text: &'static str,
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
    overloaded: "Too much is going on at the moment. Try again in a few seconds.",
    cookies_refused: "You gave the right password, but this browser keeps no cookies of this site, and without them you cannot stay \
        signed in. Allow cookies for this site, then sign in again.",
    unavailable: "This does not work at the moment. Try again later.",
    unfit: "Fill in every field.",
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
    not_signed_in: "You are not signed in, or not any more. Nothing was done. Sign in, come back to the page before with your browser, and send it again.",
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
    to_sign_in: "Go to the login page",
    forgot: "Forgot your password?",
    forgot_text: "Enter the e-mail address of your account. You get a mail with a link that sets a new password.",
    email_address: "E-mail address",
    forgot_button: "Send the link",
    look_into_mail: "Look into your mail",
    forgot_done: "If an account has this address, a mail with a link is on its way. The link works once, and not for long.",
    forgot_again: "Ask for a new link",
    reset: "Choose a new password",
    reset_text: "You will be signed out everywhere, and sign in with the new password.",
    new_password: "New password",
    reset_button: "Set the password",
    least_before: "At least",
    least_after: "characters. Several words together are good.",
    password_breached: "This password is in a list of stolen passwords. Choose one that you use nowhere else.",
    password_common: "This password is among the first that are tried. Choose one that is harder to guess.",
    password_too_long: "This password is too long.",
    password_too_short: "This password is too short.",
    link_invalid: "This link does not work any more",
    link_invalid_text: "It was used before, its time is over, or a newer one was sent.",
    password_done: "Your password was changed.",
    register: "Create an account",
    register_button: "Create the account",
    username_hint: "Small letters, digits and . _ - only. It cannot be changed later.",
    username_unfit: "A user name has 1 to 64 letters, digits and signs (. _ -), and begins with a letter or digit.",
    username_of_site: "This user name is kept for the site itself. Choose another one.",
    email_unfit: "Enter one e-mail address, as name@example.com.",
    invite: "Invitation",
    invite_invalid: "This invitation is not good, or not for this address.",
    taken: "There is an account with this name or address.",
    register_done: "A mail is on its way to the address that you gave. It says how to go on.",
    register_again: "Register again",
    registered: "Your account is ready. Sign in.",
    verify: "Confirm your account",
    verify_text: "Enter the password that you chose when you registered.",
    verify_button: "Confirm",
    verify_wrong: "This is not the password that you chose.",
    change_password: "Change the password",
    current_password: "Current password",
    current_wrong: "The current password is wrong.",
    change_password_text: "Every other session ends.",
};
