//! Validators for values that consist mostly of digits. Each takes the text and the start of a run
//! of digits, and returns the range of a value.
//!
//! Each validator inspects a bounded number of bytes, so that no text makes a scan slow.

use std::net::Ipv6Addr;
use std::ops::Range;

pub(super) fn at(text: &[u8], index: usize) -> u8 {
    text.get(index).copied().unwrap_or(b'\n')
}

/// Returns the byte before `index`, or a line feed at the start of the text.
pub(super) fn before(text: &[u8], index: usize) -> u8 {
    index.checked_sub(1).map_or(b'\n', |index| at(text, index))
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Returns the number of digits from `start` on, at most `most`.
fn digits(text: &[u8], start: usize, most: usize) -> usize {
    let rest = text.get(start..).unwrap_or_default();
    let run = rest.iter().take(most).take_while(|b| b.is_ascii_digit());
    run.count()
}

fn value(text: &[u8]) -> u32 {
    text.iter().fold(0, |n, b| n * 10 + u32::from(b - b'0'))
}

/// Matches a dotted number of four parts. A fifth part, or a letter before it, makes it a version.
pub(super) fn ipv4(text: &[u8], start: usize) -> Option<Range<usize>> {
    if is_word(before(text, start)) || b".".contains(&before(text, start)) {
        return None;
    }
    let mut end = start;
    for part in 0..4 {
        if part > 0 {
            (at(text, end) == b'.').then_some(())?;
            end += 1;
        }
        let count = digits(text, end, 4);
        let leading = count > 1 && at(text, end) == b'0';
        if count == 0 || count > 3 || leading || value(&text[end..end + count]) > 255 {
            return None;
        }
        end += count;
    }
    let next = at(text, end);
    let fifth = next == b'.' && at(text, end + 1).is_ascii_digit();
    (!is_word(next) && !fifth).then_some(start..end)
}

/// Matches an IPv6 address. `start` is the start of a token that contains a colon.
pub(super) fn ipv6(text: &[u8], start: usize) -> Option<Range<usize>> {
    const LONGEST: usize = 45;
    let rest = text.get(start..)?;
    let part = |b: &u8| b.is_ascii_hexdigit() || b":.".contains(b);
    let len = rest
        .iter()
        .take(LONGEST + 2)
        .take_while(|b| part(b))
        .count();
    if len > LONGEST + 1 || is_word(before(text, start)) {
        return None;
    }
    let token = &rest[..len];
    // Drops the punctuation at the end of a sentence or key.
    let cut = match token {
        [rest @ .., b':' | b'.'] if !rest.ends_with(b":") => rest,
        _ => token,
    };
    let colons = cut.iter().filter(|b| **b == b':').count();
    let short = cut.windows(2).any(|two| two == b"::");
    let whole = colons == 7 || colons == 6 && cut.contains(&b'.');
    if !(short || whole) || !cut.iter().any(u8::is_ascii_digit) || is_word(at(text, start + len)) {
        return None;
    }
    let address: Ipv6Addr = std::str::from_utf8(cut).ok()?.parse().ok()?;
    (!address.is_unspecified()).then_some(start..start + cut.len())
}

/// Matches a MAC address. `start` is the start of the first of six pairs, and `separator` the byte
/// after it.
pub(super) fn mac(text: &[u8], start: usize, separator: u8) -> Option<Range<usize>> {
    const LEN: usize = 17;
    let token = text.get(start..start + LEN)?;
    let fits = token.iter().enumerate().all(|(i, b)| match i % 3 {
        2 => *b == separator,
        _ => b.is_ascii_hexdigit(),
    });
    let outer = |b: u8| is_word(b) || b == separator;
    let end = start + LEN;
    (fits && !outer(before(text, start)) && !outer(at(text, end))).then_some(start..end)
}

/// Matches `ddd-dd-dddd`, with the first group at `start`.
pub(super) fn ssn_us(text: &[u8], start: usize) -> Option<Range<usize>> {
    let end = start + 11;
    let token = text.get(start..end)?;
    let fits = token.iter().enumerate().all(|(i, b)| match i {
        3 | 6 => *b == b'-',
        _ => b.is_ascii_digit(),
    });
    let outer = |b: u8| is_word(b) || b == b'-';
    if !fits || outer(before(text, start)) || outer(at(text, end)) {
        return None;
    }
    let (area, group, serial) = (value(&token[..3]), &token[4..6], &token[7..]);
    let given = !matches!(area, 0 | 666 | 900..) && group != b"00" && serial != b"0000";
    given.then_some(start..end)
}

/// Matches 17 digits and a check digit, which may be an X.
pub(super) fn id_card_cn(text: &[u8], start: usize) -> Option<Range<usize>> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let end = start + 18;
    let token = text.get(start..end)?;
    let (body, check) = token.split_at(17);
    if !body.iter().all(u8::is_ascii_digit)
        || is_word(before(text, start))
        || is_word(at(text, end))
    {
        return None;
    }
    let sum: u32 = body
        .iter()
        .zip(WEIGHTS)
        .map(|(b, w)| u32::from(b - b'0') * w)
        .sum();
    let expect = b"10X98765432"[sum as usize % 11];
    let (region, year) = (value(&body[..2]), value(&body[6..10]));
    let (month, day) = (value(&body[10..12]), value(&body[12..14]));
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let last = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    let dated = (1800..2100).contains(&year) && (1..=last).contains(&day);
    let valid = check[0].to_ascii_uppercase() == expect && dated && (11..=91).contains(&region);
    valid.then_some(start..end)
}

/// Matches the digits of a card, in one run or in printed groups.
pub(super) fn credit_card(text: &[u8], start: usize) -> Option<Range<usize>> {
    let previous = before(text, start);
    let behind = start.checked_sub(2).map_or(b'\n', |i| at(text, i));
    if is_word(previous)
        || (b".-".contains(&previous)
            && behind.is_ascii_alphanumeric()
            && !behind.is_ascii_alphabetic())
    {
        return None;
    }
    let mut number = [0u8; 19];
    let mut count = 0;
    let mut end = start;
    let run = digits(text, start, 20);
    if run >= 13 {
        if run > 19 {
            return None;
        }
        number[..run].copy_from_slice(&text[start..start + run]);
        (count, end) = (run, start + run);
    } else {
        let separator = at(text, start + 4);
        if run != 4 || !b" -".contains(&separator) {
            return None;
        }
        let groups: &[usize] = match digits(text, start + 5, 7) {
            4 => &[4, 4, 4, 4, 3],
            6 => &[4, 6, 5],
            _ => return None,
        };
        for (index, group) in groups.iter().enumerate() {
            let begin = end + usize::from(index > 0);
            if index > 0 && at(text, end) != separator || digits(text, begin, group + 1) != *group {
                break;
            }
            number[count..count + group].copy_from_slice(&text[begin..begin + group]);
            (count, end) = (count + group, begin + group);
        }
    }
    let number = &number[..count];
    let next = at(text, end);
    let more = b".-".contains(&next) && at(text, end + 1).is_ascii_digit();
    (network(number) && luhn(number) && !is_word(next) && !more).then_some(start..end)
}

fn network(number: &[u8]) -> bool {
    if number.len() < 13 {
        return false;
    }
    let (two, four) = (value(&number[..2]), value(&number[..4]));
    matches!(
        (number.len(), two, four),
        (13 | 16 | 19, 40..=49, _)
            | (16, 51..=55, _)
            | (16, _, 2221..=2720 | 3528..=3589)
            | (15, 34 | 37, _)
            | (14, 36 | 38 | 39, _)
            | (14, _, 3000..=3059)
            | (16..=19, 62 | 65, _)
            | (16..=19, _, 6011 | 6440..=6499)
    )
}

fn luhn(number: &[u8]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let digit = u32::from(b - b'0');
            match i % 2 {
                0 => digit,
                _ => digit * 2 / 10 + digit * 2 % 10,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Matches an IBAN. `start` is the start of the two check digits, after the country code.
pub(super) fn iban(text: &[u8], start: usize) -> Option<Range<usize>> {
    /// The country codes with the total lengths of their IBANs.
    const LENGTHS: &[u8] = b"\
        AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28\
        EE20EG29ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26\
        IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28\
        NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25\
        SV28TL23TN24TR26UA29VA22VG24XK20YE30";
    let from = start.checked_sub(2)?;
    let country = &text[from..start];
    if is_word(before(text, from)) || digits(text, start, 2) < 2 {
        return None;
    }
    let entry = LENGTHS
        .chunks_exact(4)
        .find(|entry| entry.starts_with(country))?;
    let length = value(&entry[2..]) as usize;
    let (mut number, mut count, mut end) = ([0u8; 34], 0, from);
    while count < length {
        let byte = at(text, end);
        if byte.is_ascii_digit() || byte.is_ascii_uppercase() {
            number[count] = byte;
            count += 1;
        } else if byte != b' ' || !count.is_multiple_of(4) || before(text, end) == b' ' {
            return None;
        }
        end += 1;
    }
    let rest = number[4..count].iter().chain(&number[..4]);
    let rest = rest.fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        _ => (rest * 100 + u32::from(byte - b'A') + 10) % 97,
    });
    (rest == 1 && !is_word(at(text, end))).then_some(from..end)
}

/// Matches forms that plain numbers do not have: a plus and a country code, groups with separators,
/// a Chinese mobile prefix.
pub(super) fn phone(text: &[u8], start: usize) -> Option<Range<usize>> {
    let previous = before(text, start);
    match previous {
        b'+' => international(text, start),
        b'(' => {
            let area = north_american(&text.get(start..start + 3)?[..3])?;
            let mut next = start + area;
            (at(text, next) == b')').then_some(())?;
            next += 1 + usize::from(at(text, next + 1) == b' ');
            let end = local(text, next, b"-. ")?;
            Some(start - 1..end)
        }
        _ if is_word(previous) || b".-/:".contains(&previous) => None,
        _ => chinese_mobile(text, start).or_else(|| grouped(text, start)),
    }
}

fn chinese_mobile(text: &[u8], start: usize) -> Option<Range<usize>> {
    let end = start + 11;
    let next = at(text, end);
    let more = b".-".contains(&next) && at(text, end + 1).is_ascii_digit();
    let known = at(text, start) == b'1' && (b'3'..=b'9').contains(&at(text, start + 1));
    (known && digits(text, start, 12) == 11 && !is_word(next) && !more).then_some(start..end)
}

/// Matches `555-123-4567`, `1-555-123-4567`, or the same with dots.
fn grouped(text: &[u8], start: usize) -> Option<Range<usize>> {
    let mut from = start;
    if at(text, start) == b'1' && b"-.".contains(&at(text, start + 1)) {
        from += 2;
    }
    north_american(text.get(from..from + 3)?)?;
    let separator = at(text, from + 3);
    if !b"-.".contains(&separator) {
        return None;
    }
    Some(start..local(text, from + 4, &[separator])?)
}

/// Matches `123-4567` and returns its end.
fn local(text: &[u8], start: usize, separators: &[u8]) -> Option<usize> {
    north_american(text.get(start..start + 3)?)?;
    let end = start + 8;
    let next = at(text, end);
    let more = b".-".contains(&next) && at(text, end + 1).is_ascii_digit();
    let fits = separators.contains(&at(text, start + 3)) && digits(text, start + 4, 5) == 4;
    (fits && !is_word(next) && !more).then_some(end)
}

/// Matches three digits that can be an area code or an exchange, and returns their length.
fn north_american(code: &[u8]) -> Option<usize> {
    let fits = code.iter().all(u8::is_ascii_digit) && matches!(code[0], b'2'..=b'9');
    fits.then_some(3)
}

fn international(text: &[u8], start: usize) -> Option<Range<usize>> {
    let from = start - 1;
    if is_word(before(text, from)) {
        return None;
    }
    let (mut number, mut count, mut end) = ([0u8; 15], 0, start);
    let mut next = start;
    loop {
        let byte = at(text, next);
        if byte.is_ascii_digit() {
            if count == number.len() {
                return None;
            }
            number[count] = byte;
            (count, next) = (count + 1, next + 1);
            end = next;
        } else if b" -.()/".contains(&byte) && next - end < 2 {
            next += 1;
        } else {
            break;
        }
    }
    let number = &number[..count];
    if is_word(at(text, end)) || count < 8 {
        return None;
    }
    let (two, rest) = (value(&number[..2]), &number[2..]);
    let valid = match two {
        10..=19 => {
            count == 11 && matches!(number[1], b'2'..=b'9') && matches!(number[4], b'2'..=b'9')
        }
        86 => (11..=13).contains(&count) && rest[0] != b'0',
        // Countries with two-digit codes, then those with three.
        7 | 70..=79 => count == 11,
        20
        | 27
        | 30..=34
        | 36
        | 39..=41
        | 43..=49
        | 51..=58
        | 60..=66
        | 81
        | 82
        | 84
        | 90..=95
        | 98 => (9..=15).contains(&count),
        21..=26 | 29 | 35 | 37 | 38 | 42 | 50 | 59 | 67..=69 | 80 | 85 | 87 | 88 | 96 | 97 | 99 => {
            (9..=15).contains(&count)
        }
        _ => false,
    };
    valid.then_some(from..end)
}

/// Matches a number after `MRN` or `Patient/`; `start` is the start of its digits.
pub(super) fn patient_number(text: &[u8], start: usize) -> Option<Range<usize>> {
    let head = &text[start.saturating_sub(12)..start];
    let fhir = head.strip_suffix(b"/");
    let name = without_tail(head, b" -#:");
    let named = |head: &[u8], word: &[u8]| {
        let from = head.len().checked_sub(word.len());
        from.is_some_and(|from| {
            head[from..].eq_ignore_ascii_case(word) && !is_word(before(head, from))
        })
    };
    let fewest = if fhir.is_some_and(|head| named(head, b"patient")) {
        1
    } else if named(name, b"mrn") {
        4
    } else {
        return None;
    };
    let count = digits(text, start, 17);
    let end = start + count;
    ((fewest..=16).contains(&count) && !is_word(at(text, end))).then_some(start..end)
}

/// Strips at most two bytes of `set` from the end.
fn without_tail<'a>(text: &'a [u8], set: &[u8]) -> &'a [u8] {
    let tail = text.iter().rev().take(2).take_while(|b| set.contains(b));
    &text[..text.len() - tail.count()]
}
