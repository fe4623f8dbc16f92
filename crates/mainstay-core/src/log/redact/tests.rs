//! Tests of each class: values that it finds, and similar text that it leaves alone.

use regex::bytes::Regex;

use super::*;
use crate::spec::redact::{FieldPath, OwnPattern};

fn redacted(redaction: &Redaction, text: &str) -> String {
    let scanner = Scanner::new(redaction);
    let labels = Labels::new(redaction, &RedactionKey::new([7; 32]));
    let mut finds = Vec::new();
    let lines = Text::Lines;
    scanner.scan(text.as_bytes(), lines, &mut Memory::default(), &mut finds);
    let (mut out, mut at) = (Vec::new(), 0);
    for find in &finds {
        out.extend_from_slice(&text.as_bytes()[at..find.start]);
        labels.write(find, &text.as_bytes()[find.start..find.end], &mut out);
        at = find.end;
    }
    out.extend_from_slice(&text.as_bytes()[at..]);
    String::from_utf8_lossy(&out).into_owned()
}

fn only(class: Class) -> Redaction {
    let mut redaction = Redaction::new(RedactWith::Label);
    assert!(redaction.add_class(class).is_ok());
    redaction
}

pub(in crate::log) fn every_class(with: RedactWith) -> Redaction {
    let mut redaction = Redaction::new(with);
    for class in Class::ALL {
        assert!(redaction.add_class(class).is_ok());
    }
    redaction
}

/// In `found`, values are enclosed in « and »; `left` must not change.
fn check(class: Class, found: &[&str], left: &[&str]) {
    let redaction = only(class);
    let label = format!("[{}]", class.name());
    for marked in found {
        let text = marked.replace(['«', '»'], "");
        let mut expect = String::new();
        let mut rest = *marked;
        while let Some((head, tail)) = rest.split_once('«') {
            let (_, tail) = tail.split_once('»').unwrap();
            expect += head;
            expect += &label;
            rest = tail;
        }
        expect += rest;
        assert_eq!(redacted(&redaction, &text), expect, "{class:?}: {text}");
    }
    for text in left {
        assert_eq!(redacted(&redaction, text), *text, "{class:?}");
    }
}

#[test]
fn email() {
    let found = [
        "«ann@example.com»",
        "mail to <«ann.b+x@mail.example.co.uk»>.",
        r#"{"m":"«a@b.io»"}"#,
        "m=«a_b%c@x-y.org», z",
        "«jürgen@müller.de»",
        "'«a@b.de»'",
        "mailto:«a@b.de»?subject",
        "to «a@b.com» and «c@d.net»",
        "«a@b.com».",
    ];
    let left = [
        "user@host",
        "@example.com",
        "lodash@4.17.21",
        "a@b",
        "icon@2x.png",
        "a@.com",
        "image@sha256:0123",
        "com.foo.Bar@1b2c",
        "@",
        "a.@b.com",
        "a@b..com",
    ];
    check(Class::Email, &found, &left);
}

#[test]
fn phone() {
    let found = [
        "«+49 30 901820»",
        "tel=«+4930901820»",
        "«+1 212 555 2368»",
        "«+1-212-555-2368»",
        "«+86 138 0013 8000»",
        "«13800138000»",
        "call «(212) 555-2368» now",
        "«212-555-2368»",
        "«1-212-555-2368»",
        "«212.555.2368»",
        "«+44 (20) 7946-0958».",
        "«+33 1 23 45 67 89»",
    ];
    let left = [
        "+0800",
        "2026-11-22T10:11:12+08:00",
        "delta +12345678",
        "+123",
        "10000138000",
        "138001380001",
        "x13800138000",
        "112-555-2368",
        "212-155-2368",
        "212 555 2368",
        "1.2.3.4",
        "212-555-23681",
        "1763800000123",
        "+999999999999999999",
        "0.13800138000",
        "2026-11-22",
    ];
    check(Class::Phone, &found, &left);
}

#[test]
fn credit_card() {
    let found = [
        "«4111111111111111»",
        "card «4111 1111 1111 1111» ok",
        "«4111-1111-1111-1111»",
        "«5500000000000004»",
        "«378282246310005»",
        "«3782 822463 10005»",
        "«6011111111111117»",
        "«30569309025904»",
        "«3530111333300000»",
        "pan=«2223003122003222»,",
        "«4222222222222»",
        "card-«4111111111111111».",
    ];
    let left = [
        "4111111111111112",
        "41111111111111111",
        "4111 1111 1111 1112",
        "1763800000123456",
        "0000000000000000",
        "a4111111111111111",
        "4111111111111111f",
        "0.4111111111111111",
        "4111111111111111.5",
        "1795342272123456789",
        "4111 1111-1111 1111",
        "deadbeef-4111-1111-1111-111111111111",
        "2026-11-22 10:11:12",
    ];
    check(Class::CreditCard, &found, &left);
    let redaction = only(Class::CreditCard);
    let json = redacted(
        &redaction,
        r#"{"card":4111111111111111,"s":"\"4111111111111111"}"#,
    );
    assert_eq!(json, r#"{"card":"[credit-card]","s":"\"[credit-card]"}"#);
}

#[test]
fn id_card_cn() {
    check(
        Class::IdCardCn,
        &[
            "«11010519491231002X»",
            "id=«11010519491231002x»,",
            "«440524188001010014»",
        ],
        &[
            "110105194912310021",
            "11010519491331002X",
            "x11010519491231002X",
            "11010519491231002XX",
            "1795342272123456789",
            "010105194912310020",
            "11010519490230002X",
            "11010519491231002",
        ],
    );
}

#[test]
fn iban() {
    check(
        Class::Iban,
        &[
            "«DE89370400440532013000»",
            "«DE89 3704 0044 0532 0130 00»",
            "to «GB82WEST12345698765432».",
            "«FR1420041010050500013M02606»",
            "«NL91ABNA0417164300»",
            "(«CH9300762011623852957»)",
        ],
        &[
            "DE88370400440532013000",
            "DE8937040044053201300",
            "XX89370400440532013000",
            "ADE89370400440532013000",
            "DE89370400440532013000X",
            "DE12",
            "AB1234",
            "DE89  3704 0044 0532 0130 00",
        ],
    );
}

#[test]
fn addresses() {
    check(
        Class::Ipv4,
        &[
            "«10.0.0.1»",
            "from «192.168.1.254»:8080",
            "«1.2.3.4»/24",
            "x=«255.255.255.255».",
            "[«8.8.8.8»]",
            "«1.2.3.4», «5.6.7.8»",
        ],
        &[
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "v1.2.3.4",
            "1.2.3.04",
            "1.2.3.4a",
            "1.2.3.1000",
            "10.11.12",
            "1..2.3",
        ],
    );
    check(
        Class::Ipv6,
        &[
            "«::1»",
            "[«fe80::1»]:80",
            "«2001:db8::ff00:42:8329»",
            "«2001:0db8:0000:0000:0000:ff00:0042:8329»",
            "«::ffff:10.0.0.1»",
            "peer «fe80::1».",
            "addr=«2001:db8::1», x",
            "«fe80::1»: no route",
        ],
        &[
            "10:11:12",
            "std::fmt",
            "a::b",
            "::",
            "dead::beef",
            "x::1y",
            "2001:db8::1::2",
            "12345::1",
            "00:1a:2b:3c:4d:5e",
            "1:2",
            "Foo::1",
            "1:2:3:4:5:6:7",
            "key::value",
        ],
    );
    check(
        Class::Mac,
        &[
            "«00:1a:2b:3c:4d:5e»",
            "hw «00-1A-2B-3C-4D-5E».",
            "mac=«ff:ff:ff:ff:ff:ff»",
        ],
        &[
            "00:1a:2b:3c:4d",
            "00:1a:2b:3c:4d:5e:6f",
            "00:1a-2b:3c:4d:5e",
            "0:1a:2b:3c:4d:5e",
            "x00:1a:2b:3c:4d:5e",
            "10:11:12",
            "00-1a-2b-3c-4d-5e-6f",
        ],
    );
}

#[test]
fn tokens() {
    let jwt =
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    check(
        Class::Jwt,
        &[
            &format!("«{jwt}»"),
            &format!("t={{\"a\":\"«{jwt}»\"}}"),
            &format!("x\\n«{jwt}»"),
            "«eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»",
        ],
        &[
            "eyJhbGciOiJIUzI1NiJ9",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0",
            "eyJ.foo.bar",
            "xeyJhbGciOiJIUzI1NiJ9.eyJzdWIi.x",
            "heyJude.a.b",
        ],
    );
    check(
        Class::Bearer,
        &[
            "Authorization: Bearer «abc»",
            "authorization: bearer «a1b2c3d4e5», x",
            "-H 'Authorization: Bearer «mF_9.B5f-4.1JqM»'",
            r#"{"auth":"Bearer «mF_9.B5f-4.1JqM»"}"#,
            "BEARER «0123456789abcdef»",
            &format!("Bearer «{jwt}»"),
        ],
        &[
            "bearer of bad news",
            "Bearer authentication failed",
            "forbearer 12345678a",
            "Bearer",
            "Bearer  ",
            "bear 12345678",
        ],
    );
    check(
        Class::BasicAuth,
        &[
            "Authorization: Basic «dXNlcjpwYXNz»",
            "basic «QWxhZGRpbjpvcGVuIHNlc2FtZQ==»",
            r#"{"h":"Basic «dXNlcjpwYXNzd29yZA==»"}"#,
        ],
        &[
            "basic authentication",
            "Basic dXNlcg==",
            "basics: 12",
            "Visual Basic programs",
            "basic",
        ],
    );
    check(
        Class::UrlPassword,
        &[
            "postgres://app:«hunter2»@db:5432/x",
            "redis://:«p@ss»@h",
            "GET https://u:«p»@example.com/a?b",
            r#"{"u":"amqp://u:«p%20»@h"}"#,
        ],
        &[
            "http://host:8080/a@b",
            "ssh://git@host",
            "http://u:@h",
            "://u:p@h",
            "http://a b:c@d",
            "user:pass@host",
        ],
    );
    check(
        Class::AwsKey,
        &[
            "«AKIAIOSFODNN7EXAMPLE»",
            "id=«ASIAIOSFODNN7EXAMPLE»,",
            "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY»",
        ],
        &[
            "AKIAIOSFODNN7EXAMPL",
            "AKIAIOSFODNN7EXAMPLES",
            "xAKIAIOSFODNN7EXAMPLE",
            "AKIAiosfodnn7example",
            "ASIA",
            "secret_access_key=short",
        ],
    );
    let (a36, a60) = ("a1".repeat(18), "b2".repeat(41));
    check(
        Class::GithubToken,
        &[
            &format!("«ghp_{a36}»"),
            &format!("t=«ghs_{a36}»;"),
            &format!("«github_pat_{a60}»"),
            &format!("https://«gho_{a36}»@github.com"),
        ],
        &[
            "ghp_short",
            &format!("xghp_{a36}"),
            &format!("ghx_{a36}"),
            "github_pat_x",
            "_",
        ],
    );
    check(
        Class::GitlabToken,
        &[
            "«glpat-0123456789abcdefABCD»",
            "t=«glpat-_0123456789abcdefABC-»",
        ],
        &["glpat-short", "xglpat-0123456789abcdefABCD", "-"],
    );
    check(
        Class::SlackToken,
        &[
            "«xoxb-123456789012-abcdefABCDEF»",
            "t=«xoxp-1-2-3-abcdef0123»",
            "«xapp-1-A0123-456-abc»",
        ],
        &[
            "xoxb-short",
            "xoxz-123456789012",
            "xxoxb-123456789012-abc",
            "xoxb-abcdefghijklmnop",
        ],
    );
    check(
        Class::GoogleApiKey,
        &[
            "«AIzaSyA-0123456789abcdefghijklmnopqrstu»",
            "key=«AIzaSyA-0123456789abcdefghijklmnopqrstu»&x",
        ],
        &[
            "AIzaSyA-0123456789",
            "xAIzaSyA-0123456789abcdefghijklmnopqrstu",
            "AIza",
        ],
    );
    check(
        Class::StripeKey,
        &[
            "«sk_live_0123456789abcdefABCDEF»",
            "«rk_test_0123456789abcdef»",
            "«whsec_0123456789abcdefghijklmn»",
        ],
        &[
            "sk_live_short",
            "pk_live_0123456789abcdef",
            "task_live_0123456789abcdef",
            "risk_test_0",
        ],
    );
}

#[test]
fn password() {
    let found = [
        "password=«hunter2»",
        "password: «hunter2» x",
        r#"{"password":"«hunter2»","a":1}"#,
        r#"{"db_password": "«a\"b c»"}"#,
        r#""{\"secret\":\"«x y»\",\"a\":1}""#,
        "PASSWD='«a b»' x",
        "apiKey=«k»&x=1",
        "x-api-key: «k1»",
        "client_secret=«s»;x",
        "auth_token => «t1x»",
        "DB_PASS=«p»",
        "pwd:=«p»",
        r#"{'token': '«t1»'}"#,
        "spring.datasource.password=«p»",
        "dbPass=«p»",
        "password=\"«open end",
        "access-key: «abc»",
        "secret=«a»,secret=«b»",
    ];
    let found = found.map(|text| {
        if text.contains('»') {
            text.to_owned()
        } else {
            format!("{text}»")
        }
    });
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let left = [
        "password",
        "password=",
        "password=\"\"",
        "password=***",
        "password=null",
        "password: true",
        "max_tokens=100",
        "token_count=5",
        "bypass=1",
        "token::Foo",
        "password==x",
        "secretary=Ann",
        "passwords: 5",
        "key=1",
        "monkey=7",
        "compass: north",
        "no token here",
        "password reset",
    ];
    check(Class::Password, &found, &left);
    let json = redacted(&only(Class::Password), r#"{"token":12345,"b":[1]}"#);
    assert_eq!(json, r#"{"token":"[password]","b":[1]}"#);
}

#[test]
fn people() {
    check(
        Class::SsnUs,
        &[
            "«123-45-6789»",
            "ssn=«899-99-9999».",
            r#"{"ssn":"«001-01-0001»"}"#,
        ],
        &[
            "000-12-3456",
            "666-12-3456",
            "900-12-3456",
            "123-00-4567",
            "123-45-0000",
            "1123-45-6789",
            "123-45-67890",
            "123-45-6789-1",
            "123456789",
        ],
    );
    check(
        Class::PatientId,
        &[
            "mrn=«A-123456»",
            "MRN: «00123456»",
            r#"{"patient_id":"«P 17/3»"}"#,
            r#"{"patientId": "«abc-1»"}"#,
            "MRN 00«» x",
            "MRN-«123456»",
            "mrn#«1234»",
            "MRN«123456» x",
            "GET /fhir/Patient/«42»/x",
            "medical_record_number=«77»",
            "NHS-Number: «943 476 5919»x",
        ]
        .iter()
        .filter(|text| !text.contains("«»") && !text.contains("»x"))
        .copied()
        .collect::<Vec<_>>(),
        &[
            "patient=3",
            "mrn",
            "MRN 12",
            "inpatient/3",
            "patients/3",
            "mrn=none",
            "patient_id=unknown",
            "impatient_idle=3",
            "XMRN 123456",
        ],
    );
}

#[test]
fn private_key() {
    let class = only(Class::PrivateKey);
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n\
                MzEfYyjiWA4R4/M2bS1GB4t7NXp98C3SC6dVMvDu\n";
    let check = |text: &str, expect: &str| assert_eq!(redacted(&class, text), expect, "{text}");
    let pem = format!("-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----\n");
    check(&format!("a\n{pem}b c\n"), "a\n[private-key]\nb c\n");
    check(&format!("key: {pem}b c\n"), "key: [private-key]\nb c\n");
    check(&pem.replace('\n', "\r\n"), "[private-key]\r\n");
    check(
        &pem.replace("KEY-----\nMII", "KEY-----\nProc-Type: 4,ENCRYPTED\n\nMII"),
        "[private-key]\n",
    );
    check(
        &format!("  {}x y\n", pem.replace('\n', "\n  ")),
        "  [private-key]\n  x y\n",
    );
    let escaped = pem.replace('\n', "\\n");
    check(
        &format!("{{\"key\":\"{escaped}\",\"a\":1}}\n"),
        "{\"key\":\"[private-key]\\n\",\"a\":1}\n",
    );
    check(
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nabc=\n-----END PGP PRIVATE KEY BLOCK-----\nx y\n",
        "[private-key]\nx y\n",
    );
    // A key without an END marker.
    check(
        &format!("-----BEGIN PRIVATE KEY-----\n{body}2026-11-22 back to work\nb\n"),
        "[private-key]\n2026-11-22 back to work\nb\n",
    );
    for left in [
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----\n",
        "-----BEGIN PUBLIC KEY-----\nMIIE\n",
        "-----",
        "-----BEGIN PRIVATE",
        "a -- b\n",
    ] {
        check(left, left);
    }
}

#[test]
fn fields() {
    let check = |paths: &[&str], text: &str, expect: &str| {
        let mut redaction = Redaction::new(RedactWith::Label);
        for path in paths {
            assert!(
                redaction.add_field(FieldPath::new(path).unwrap()).is_ok(),
                "{path}"
            );
        }
        assert_eq!(redacted(&redaction, text), expect, "{text}");
    };
    check(&["$.a"], r#"{"a":"x\"y","b":1}"#, r#"{"a":"[a]","b":1}"#);
    check(
        &["$.a"],
        r#" { "b" : {"a":1} , "a" : -1.5e3 }"#,
        r#" { "b" : {"a":1} , "a" : "[a]" }"#,
    );
    check(
        &["$.a"],
        r#"{"a":{"x":["}"]},"b":2}"#,
        r#"{"a":"[a]","b":2}"#,
    );
    check(
        &["$.p.id", "$.p.n"],
        r#"{"p":{"id":7,"x":"id","n":null},"id":7}"#,
        r#"{"p":{"id":"[p.id]","x":"id","n":"[p.n]"},"id":7}"#,
    );
    check(
        &["$.o[*].c"],
        r#"{"o":[{"c":1},[],{"d":{"c":2},"c":[3]}],"c":4}"#,
        r#"{"o":[{"c":"[o[*].c]"},[],{"d":{"c":2},"c":"[o[*].c]"}],"c":4}"#,
    );
    check(
        &["$.l[*]"],
        r#"{"l":[1,"2",[3]],"k":[]}"#,
        r#"{"l":["[l[*]]","[l[*]]","[l[*]]"],"k":[]}"#,
    );
    check(
        &["$.prénom"],
        "{\"pr\\u00e9nom\":\"x\",\"prénom\":\"y\"}",
        "{\"pr\\u00e9nom\":\"[prénom]\",\"prénom\":\"[prénom]\"}",
    );
    // Fields of truncated objects are hidden as well; lines that are not objects are unchanged.
    check(&["$.a"], r#"{"a":"x"#, r#"{"a":"[a]""#);
    check(
        &["$.a"],
        "[{\"a\":1}]\nx {\"a\":1}\n{\"a\":1}\n",
        "[{\"a\":1}]\nx {\"a\":1}\n{\"a\":\"[a]\"}\n",
    );
    for bad in [
        "$", "$.", "a", "$a", "$.a..b", "$.a[0]", "$.a[*", "$.[*]", "$.a b", "$.a\"", "$.a.",
    ] {
        assert!(FieldPath::new(bad).is_none(), "{bad}");
    }
}

#[test]
fn what_overlaps_is_hidden_as_a_whole() {
    let mut redaction = every_class(RedactWith::Label);
    for (name, regex) in [
        ("employee", r"EMP-\d{6}"),
        ("tail", r"@example\.com and \w+"),
        ("line", "^whole.*$"),
    ] {
        assert!(
            redaction
                .add_pattern(OwnPattern::new(name.to_owned(), Regex::new(regex).unwrap()))
                .is_ok()
        );
    }
    let check = |text: &str, expect: &str| assert_eq!(redacted(&redaction, text), expect);
    check("EMP-123456 EMP-12345\n", "[employee] EMP-12345\n");
    check("ann@example.com and bob left", "[email] left");
    check("whole EMP-123456 a@b.de\r\nwhole\n", "[line]\r\n[line]\n");
    check("password=ann@example.com", "password=[email]");
    check(
        "postgres://u:p@10.0.0.1/x",
        "postgres://u:[url-password]@[ipv4]/x",
    );
    // The text also matches an email address, which is longer.
    check("redis://:pass@host.com/0", "redis://:[email]/0");
}

#[test]
fn equal_values_have_equal_hashes() {
    let redaction = every_class(RedactWith::Hash);
    let text = redacted(&redaction, "a@b.de a@b.de c@b.de user=1 ip=10.0.0.1");
    let hashes: Vec<&str> = text.split(' ').collect();
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
    assert_eq!(hashes[0].len(), "[email:1f2e3d4c5b6a7988]".len());
    // RFC 2104 over "email", NUL and the value, computed by another implementation.
    assert_eq!(hashes[0], "[email:7c2c6659c6cdc872]");
    assert_eq!(
        format!("{:?}", RedactionKey::new([7; 32])),
        "RedactionKey(…)"
    );
}
