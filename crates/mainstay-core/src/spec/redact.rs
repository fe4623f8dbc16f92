//! The data to remove from a service's output.

use regex::bytes::Regex;
use serde::Serialize;

macro_rules! classes {
    ($($Name:ident $text:literal $doc:literal,)*) => {
        /// A class of data that is recognized by its form.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Class { $(#[doc = $doc] $Name,)* }

        impl Class {
            /// All classes. If two finds are equal, the label of the first class is used.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$Name,)*];

            /// Returns the name in manifests and labels.
            pub fn name(self) -> &'static str {
                match self { $(Self::$Name => $text,)* }
            }
        }
    };
}

classes! {
    Email "email" "`name@host.tld`.",
    Phone "phone"
        "Telephone numbers: international (`+49 …`), North American with separators, Chinese mobile.",
    CreditCard "credit-card"
        "Card numbers: 13 to 19 digits of a known network with a valid Luhn check digit, also in groups.",
    IdCardCn "id-card-cn"
        "Chinese identity numbers with a valid region, date and check digit (ISO 7064 MOD 11-2).",
    Iban "iban" "IBANs of the country's length with valid check digits (mod 97), also in groups.",
    Ipv4 "ipv4" "IPv4 addresses.",
    Ipv6 "ipv6" "IPv6 addresses that contain a digit.",
    Mac "mac" "MAC addresses: six pairs of hexadecimal digits.",
    Jwt "jwt" "JSON Web Tokens: three or five parts, the first of which begins a JSON object.",
    Bearer "bearer" "The token after `Bearer`.",
    BasicAuth "basic-auth" "The value after `Basic`, if it is `user:password` in Base64.",
    UrlPassword "url-password" "The password of `scheme://user:password@host`.",
    AwsKey "aws-key" "AWS access key IDs, and secret access keys after their key name.",
    PrivateKey "private-key" "PEM and PGP private keys, on several lines or on one.",
    GithubToken "github-token" "GitHub tokens: `ghp_…`, `github_pat_…` and related prefixes.",
    GitlabToken "gitlab-token" "`glpat-…`.",
    SlackToken "slack-token" "Slack tokens: `xoxb-…` and related prefixes, `xapp-…`.",
    GoogleApiKey "google-api-key" "Google API keys: `AIza` and 35 more characters.",
    StripeKey "stripe-key"
        "Stripe keys: `sk_live_…`, `rk_test_…` and related prefixes, `whsec_…`.",
    Password "password"
        "The value of a key that ends with password, passwd, pwd, secret, token, api_key and the like.",
    SsnUs "ssn-us" "US social security numbers with dashes, in an assigned range.",
    PatientId "patient-id"
        "Patient identifiers: the value of mrn, patient_id, medical_record_number and the like; `MRN 123456`, `Patient/123`.",
}

/// The replacement for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RedactWith {
    /// A label: `[email]`.
    Label,
    /// A label with a keyed hash, `[email:1f2e3d4c5b6a7988]`, which allows equal values to be
    /// correlated.
    Hash,
}

/// A path to fields of a JSON object: keys, and `[*]` for every item of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Items,
}

impl FieldPath {
    /// Parses `$.a.b` or `$.a[*].b`; `None` for any other form.
    pub fn new(text: &str) -> Option<Self> {
        let name = text.strip_prefix("$.")?;
        let mut steps = Vec::new();
        for part in name.split('.') {
            let key = part.trim_end_matches("[*]");
            let plain = |c: char| !c.is_control() && !"[]\"\\ ".contains(c);
            if key.is_empty() || !key.chars().all(plain) {
                return None;
            }
            steps.push(Step::Key(key.to_owned()));
            let items = (part.len() - key.len()) / "[*]".len();
            steps.extend(std::iter::repeat_n(Step::Items, items));
        }
        (steps.len() <= 32).then(|| Self {
            name: name.to_owned(),
            steps,
        })
    }
}

/// A custom regular expression of a manifest, with the name for its label.
#[derive(Clone, Debug)]
pub struct OwnPattern {
    pub(crate) name: String,
    pub(crate) regex: Regex,
}

impl OwnPattern {
    pub(crate) fn new(name: String, regex: Regex) -> Self {
        Self { name, regex }
    }
}

impl PartialEq for OwnPattern {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.regex.as_str() == other.regex.as_str()
    }
}

impl Eq for OwnPattern {}

/// The redaction rules for a service's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redaction {
    /// One bit per class, by its index in [`Class::ALL`].
    pub(crate) classes: u32,
    pub(crate) fields: Vec<FieldPath>,
    pub(crate) patterns: Vec<OwnPattern>,
    pub(crate) with: RedactWith,
}

/// The reason why an entry cannot be added.
pub(crate) enum Refused {
    Twice,
    TooMany,
}

impl Redaction {
    /// The maximum number of field paths. Their states are the bits of one word.
    pub(crate) const MOST_FIELDS: usize = 64;

    pub(crate) fn new(with: RedactWith) -> Self {
        Self {
            classes: 0,
            fields: Vec::new(),
            patterns: Vec::new(),
            with,
        }
    }

    /// Returns whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.classes == 0 && self.fields.is_empty() && self.patterns.is_empty()
    }

    /// Returns whether values of this class are hidden.
    pub fn has(&self, class: Class) -> bool {
        self.classes & (1 << class as u32) != 0
    }

    /// Returns the replacement for values.
    pub fn with(&self) -> RedactWith {
        self.with
    }

    pub(crate) fn add_class(&mut self, class: Class) -> Result<(), Refused> {
        if self.has(class) {
            return Err(Refused::Twice);
        }
        self.classes |= 1 << class as u32;
        Ok(())
    }

    pub(crate) fn add_field(&mut self, path: FieldPath) -> Result<(), Refused> {
        if self.fields.contains(&path) {
            return Err(Refused::Twice);
        }
        if self.fields.len() == Self::MOST_FIELDS {
            return Err(Refused::TooMany);
        }
        self.fields.push(path);
        Ok(())
    }

    pub(crate) fn add_pattern(&mut self, pattern: OwnPattern) -> Result<(), Refused> {
        if self.patterns.contains(&pattern) {
            return Err(Refused::Twice);
        }
        self.patterns.push(pattern);
        Ok(())
    }
}
