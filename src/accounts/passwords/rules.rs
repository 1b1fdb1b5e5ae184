//! Is a new password one of those that are tried first? (AUTH-5, NIST SP 800-63B §3.1.1.2)
//!
//! A list of common passwords that are as long as the shortest allowed is a list of combinations: words of the short lists put
//! together, with a year or a run of digits behind them. So the pieces are kept here and the combinations recognised: a
//! password that can be covered by at most three pieces is refused, which are many millions. Unlike a rule of composition this
//! refuses no sentence and no random text.

/// A password of so few pieces falls to the first list that is tried.
const PIECES_MAX: usize = 3;

/// What repeats a unit shorter than this says no more than the unit.
const UNIT_CHARS_MIN: usize = 8;

/// The shortest run of a keyboard, and the shortest word about the owner.
const RUN_CHARS_MIN: usize = 3;

/// Digits that somebody puts at an end.
const DIGITS_MAX: usize = 4;

/// Rows that fingers walk along, either way.
const ROWS: [&str; 12] = [
    "abcdefghijklmnopqrstuvwxyz",
    "01234567890",
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "qwertzuiop",
    "azertyuiop",
    "yxcvbnm",
    "1q2w3e4r5t6y7u8i9o0p",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm",
    "qazwsxedcrfvtgbyhnujm",
    "q1w2e3r4t5y6u7i8o9p0",
];

/// What people put into passwords, by the lists that were published after thefts: words of three letters and more.
const WORDS: &str = "\
access account adam admin administrator alex alexander alexis amanda america andrea andrew angel angela angels animal anthony \
apple april arsenal ashley asshole august austin autumn awesome baby babygirl badboy bailey banana barcelona baseball basketball \
batman beautiful beauty benjamin berlin bigdaddy blink blue bond boomer boston brandon brandy brooklyn bubbles buddy bulldog \
butter butterfly buster camaro canada captain carlos casper changeme charles charlie cheese chelsea cherry chester chicago chicken chocolate \
chris christian church classic coffee company computer cookie cooper corvette cowboy cowboys crystal daddy dakota dallas daniel daniela danielle \
david default december demo destiny diablo diamond doctor dolphin dragon eagle eagles edward elephant elizabeth eminem enter estrella \
extreme facebook falcon family february ferrari fish flower flowers football forever freedom friday friend friends fuck fuckyou gandalf gateway \
george ginger golden golfer google green guest guitar gunner hannah happy hardcore harley harry heather hello hockey holiday home \
hotdog hunter iceman iloveyou internet isabella jackson james january jasmine jason jasper jennifer jeremy jessica jesus johnny jonathan \
jordan joseph joshua july june junior justin killer king knight ladies lakers latin lauren legend letmein liberty little liverpool \
login london lord lovely lover loveme love lovers lucky maggie magic manager manchester manunited march marina marine mario marlboro \
martin master matrix matthew maverick maxwell melissa mercedes merlin michael michelle mickey midnight miller mission monday money monkey monster \
morgan mother mountain mustang naruto nascar natasha nathan network newyork nicholas nicole nintendo nirvana november october office oliver \
online orange paradise parker pass passw passwd password passphrase passwort contraseña motdepasse patrick peaches peanut penis people pepper peter phoenix \
player please pokemon police porsche portcullis prince princess private purple pussy queen rabbit rachel rainbow ranger rangers raiders \
rebecca red redsox richard robert rock rocket root rosebud runner russia samantha samsung samuel sandra saturday saturn scooter scorpion \
secret security sebastian september server service sexy shadow shannon shelby sierra silver simple skippy slayer slipknot smokey snoopy snowball soccer \
sophie spider spiderman spring spongebob startrek star starwars steelers stella steven stupid success summer sunday sunflower sunshine superman superstar super \
support sweet sweety sysadmin system taylor teacher tech temp temporary tennis test tester testing thankyou theman thomas thunder thursday tiffany tiger tigers \
tigger tinkerbell tomcat toyota trustno trust tuesday tucker turtle unknown user username vanessa victor victoria viking viper warrior wednesday \
welcome whatever white willow william windows winner winston winter wizard wolf yamaha yankees yellow zxcvbn the and you are for me my is one two three \
hallo schatz hase passwoord wachtwoord haslo parola senha azerty soleil doudou bonjour amour querty lol lmao xxx abc qwe asd zxc";

/// Whether a password is one of those. `words` are about its owner and this site; each may have several parts.
pub(super) fn is_common(password: &str, words: &[&str]) -> bool {
    let chars: Vec<char> = password.to_lowercase().chars().collect();
    let period = period(&chars);
    if period < chars.len() && period < UNIT_CHARS_MIN {
        return true;
    }
    let unit = chars.get(..period).unwrap_or(&chars);
    let owner: Vec<Vec<char>> = words
        .iter()
        .flat_map(|word| parts(word))
        .filter(|word| word.len() >= RUN_CHARS_MIN)
        .collect();
    let rows: Vec<Vec<char>> = ROWS.iter().flat_map(|row| both_ways(row)).collect();
    let common: Vec<Vec<char>> = WORDS
        .split_whitespace()
        .map(|word| word.chars().collect())
        .collect();
    let lists = Lists {
        words: common.into_iter().chain(owner).collect(),
        rows,
    };
    pieces(unit, &lists).is_some_and(|pieces| pieces <= PIECES_MAX)
}

struct Lists {
    words: Vec<Vec<char>>,
    rows: Vec<Vec<char>>,
}

/// A word and its parts, so that of `ann.smith` each is a word too.
fn parts(word: &str) -> Vec<Vec<char>> {
    let word = word.to_lowercase();
    let parts = word.split(|char: char| !char.is_alphanumeric());
    let whole = std::iter::once(&*word);
    parts
        .chain(whole)
        .map(|part| part.chars().collect())
        .collect()
}

fn both_ways(row: &str) -> [Vec<char>; 2] {
    [row.chars().collect(), row.chars().rev().collect()]
}

/// After how many characters the text begins again, at least once in full; else its length.
fn period(chars: &[char]) -> usize {
    (1..=chars.len() / 2)
        .find(|period| {
            let later = chars.iter().skip(*period);
            later.zip(chars).all(|(one, other)| one == other)
        })
        .unwrap_or(chars.len())
}

/// The fewest pieces that cover the text; `None` where something of it is no piece. A sign between pieces costs nothing.
fn pieces(chars: &[char], lists: &Lists) -> Option<usize> {
    // The fewest for each rest of the text, the shortest rest first.
    let mut fewest: Vec<Option<usize>> = vec![Some(0)];
    for start in (0..chars.len()).rev() {
        let rest = chars.get(start..).unwrap_or_default();
        // `fewest` holds the rests that are shorter than this one, by their length.
        let after = |length: usize| fewest.get(rest.len() - length).copied().flatten();
        let mut best = None;
        for (length, cost) in beginnings(rest, lists) {
            let total = after(length).map(|pieces| pieces + cost);
            best = match (best, total) {
                (Some(one), Some(other)) => Some(std::cmp::min::<usize>(one, other)),
                (one, other) => one.or(other),
            };
        }
        fewest.push(best);
    }
    fewest.last().copied().flatten()
}

/// The pieces that a text begins with: their lengths, and what each costs.
fn beginnings(rest: &[char], lists: &Lists) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let first = rest.first().copied().unwrap_or_default();
    if first.is_ascii() && !first.is_ascii_alphanumeric() {
        found.push((1, 0));
    }
    for word in &lists.words {
        let fits = word.len() <= rest.len() && word.iter().zip(rest).all(|(a, b)| reads_as(*a, *b));
        if fits {
            found.push((word.len(), 1));
        }
    }
    let same = rest.iter().take_while(|char| **char == first).count();
    let digits = rest.iter().take_while(|char| char.is_ascii_digit()).count();
    let mut longest = same.max(digits.min(DIGITS_MAX));
    for row in &lists.rows {
        longest = longest.max(along(row, rest));
    }
    if same >= 2 || digits >= 1 || longest >= RUN_CHARS_MIN {
        // Any part of a run is one, so that what follows may begin within it.
        found.extend((1..=longest).map(|length| (length, 1)));
    }
    found
}

/// How far the text goes along a row.
fn along(row: &[char], rest: &[char]) -> usize {
    let starts = 0..row.len();
    let length = |start: usize| {
        let row = row.iter().skip(start);
        row.zip(rest)
            .take_while(|(one, other)| one == other)
            .count()
    };
    let longest = starts.map(length).max().unwrap_or(0);
    if longest >= RUN_CHARS_MIN { longest } else { 0 }
}

/// Whether a character is a letter, or the sign that people write for it.
fn reads_as(letter: char, written: char) -> bool {
    letter == written
        || matches!(
            (letter, written),
            ('a', '4' | '@')
                | ('b', '8')
                | ('e', '3')
                | ('g', '9')
                | ('i' | 'l', '1' | '!' | '|')
                | ('o', '0')
                | ('s', '5' | '$')
                | ('t', '7' | '+')
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: [&str; 3] = ["ann.smith", "annie@mailbox.example", "gate.example"];

    #[track_caller]
    fn check(password: &str, want: bool) {
        assert_eq!(is_common(password, &OWNER), want, "{password}");
    }

    #[test]
    fn auth_5_common_passwords_are_refused() {
        for password in [
            "passwordpassword",
            "password123456789",
            "Password1234567!",
            "P@ssw0rd12345678",
            "qwertyuiopasdfghjkl",
            "qwertyuiop1234567890",
            "1q2w3e4r5t6y7u8i",
            "1qaz2wsx3edc4rfv",
            "123456789012345",
            "987654321098765",
            "111111111111111",
            "aaaaaaaaaaaaaaaaaaaa",
            "abcabcabcabcabcabc",
            "abcdefghijklmnop",
            "iloveyouforever",
            "iloveyou iloveyou",
            "letmeinletmein1",
            "sunshine-princess",
            "SummerSummer2024",
            "Monday-Tuesday-Wednesday",
            "administrator2024",
            "trustno1trustno1",
            "changemechangeme",
            "               ",
            "!!!!!!!!!!!!!!!!",
            "portcullis-password",
            "portcullis gateway 1",
        ] {
            check(password, true);
        }
    }

    #[test]
    fn auth_5_words_about_the_owner_and_the_site_are_refused() {
        for password in [
            "ann.smith ann.smith",
            "annsmith12345678",
            "smith-password-1",
            "annie@mailbox.example",
            "gate.example 2024",
            "Smith.Mailbox.99",
        ] {
            check(password, true);
        }
        assert!(!is_common("Smith.Mailbox.99", &["bob"]));
    }

    #[test]
    fn auth_4_what_has_more_to_it_is_taken() {
        for password in [
            "correct horse battery staple",
            "wrong horse battery staple",
            "my dog ate 3 of the 7 lamps",
            "dragon violin shadow parsley",
            "Kp9-zzR4-mm2Q-xxA7",
            "b7Jq0vT2mZx91LcW",
            "\u{1f600} smiling while it rains",
            "пароль из шести слов",
            " leading and trailing ",
        ] {
            check(password, false);
        }
    }

    #[test]
    fn auth_5_the_list_stands_for_thousands_and_the_longest_password_is_judged() {
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        let mut entries = 0_u32;
        for one in words.iter().take(80) {
            for other in words.iter().rev().take(80) {
                let password = format!("{one}{other}1234567");
                assert!(is_common(&password, &[]), "{password}");
                entries += 1;
            }
        }
        assert!(entries >= 3000);
        let long: String = "ab1 zq9 ".chars().cycle().take(256).collect();
        is_common(&long, &OWNER);
    }
}
