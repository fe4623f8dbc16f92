//! Alerts (docs/alerts.md): rate limiting, webhook retries and webhook signatures.
//!
//! The host passes in the facts for which [`Fact::is_alert`] holds and the responses of receivers,
//! each with the time, and carries out the decisions made here.

use std::collections::VecDeque;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::engine::Fact;
use crate::engine::backoff::{Random, pause};
use crate::spec::{AlertLimit, Backoff};
use crate::time::Instant;

/// The rate limiter for one service's alerts, which protects their receivers from alert storms.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The times of the alerts within the limit's window.
    recent: VecDeque<Instant>,
    suppressed: u64,
}

impl Limiter {
    /// Decides whether to send this alert. Returns the number of alerts suppressed since the last
    /// one that was sent.
    ///
    /// Halts, and the start and end of a crash loop, are always sent.
    ///
    /// # Errors
    /// If the alert is suppressed. The error is the number of alerts suppressed in a row, including
    /// this one.
    pub fn admit(
        &mut self,
        limit: Option<AlertLimit>,
        fact: &Fact,
        now: Instant,
    ) -> Result<u64, u64> {
        if let Some(limit) = limit {
            let is_over = |at: &Instant| now.since(*at) >= limit.window();
            while self.recent.front().is_some_and(is_over) {
                self.recent.pop_front();
            }
            if self.recent.len() >= limit.alerts() as usize {
                if !fact.is_urgent() {
                    self.suppressed += 1;
                    return Err(self.suppressed);
                }
                self.recent.pop_front();
            }
            self.recent.push_back(now);
        }
        Ok(std::mem::take(&mut self.suppressed))
    }
}

/// The delays after the first attempt, with jitter.
const RETRY: Backoff = Backoff {
    base: Duration::from_secs(1),
    factor: 2.0,
    max: Duration::from_secs(300),
};

/// The delivery attempts of one alert to a webhook.
#[derive(Debug)]
pub struct Tries {
    deadline: Instant,
    failed: u32,
    random: Random,
}

/// The outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// An HTTP status and the delay that the receiver asks for (`Retry-After`, RFC 9110 §10.2.3).
    Status(u16, Option<Duration>),
    /// No response: the connection, the TLS handshake or the request failed or timed out, or the
    /// request could not be made (for example, because the key is not readable).
    Nothing,
}

/// The next step after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// None: the alert was delivered.
    Delivered,
    /// Another attempt, after this delay.
    Again(Duration),
    /// None: another attempt would not help, or the deadline has passed.
    Lost,
}

impl Tries {
    /// Creates the attempts for an alert that must be delivered within `timeout` from `now`.
    /// `seed` affects only the jitter.
    pub fn new(timeout: Duration, now: Instant, seed: u64) -> Self {
        Self {
            deadline: now + timeout,
            failed: 0,
            random: Random::new(seed),
        }
    }

    /// Returns the number of failed attempts.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Classifies an attempt that ended at `now`. A rejection is final unless its status is
    /// temporary: 408, 425, 429 and 5xx.
    pub fn classify(&mut self, answer: Answer, now: Instant) -> Next {
        let wanted = match answer {
            Answer::Status(200..=299, _) => return Next::Delivered,
            Answer::Status(408 | 425 | 429 | 500..=599, wanted) => wanted.unwrap_or_default(),
            Answer::Nothing => Duration::ZERO,
            Answer::Status(..) => {
                self.failed += 1;
                return Next::Lost;
            }
        };
        let pause = pause(RETRY, self.failed, &mut self.random).max(wanted);
        self.failed += 1;
        if now + pause <= self.deadline {
            Next::Again(pause)
        } else {
            Next::Lost
        }
    }
}

/// The keys shared with a webhook: the current one first, then those being phased out. The type
/// implements neither `Debug` nor `Display`.
pub struct SigningKeys(Vec<Vec<u8>>);

impl SigningKeys {
    /// Parses one key per line: `whsec_` followed by 24 to 64 bytes in Base64, as in Standard
    /// Webhooks.
    ///
    /// # Errors
    /// If a line is not a key, or there is none. The message contains no part of the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let keys: Option<Vec<_>> = lines
            .map(|line| {
                let key = BASE64_STANDARD.decode(line.strip_prefix("whsec_")?).ok()?;
                (24..=64).contains(&key.len()).then_some(key)
            })
            .collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => {
                Err("a key consists of `whsec_` and 24 to 64 bytes in Base64, on a line of its own")
            }
        }
    }

    /// Returns the `webhook-signature` header of an attempt, with one signature per key.
    /// `timestamp` is in seconds since 1970.
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let sign = |key: &Vec<u8>| {
            // HMAC accepts keys of any length (RFC 2104).
            let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
            Some(format!("v1,{signature}"))
        };
        let signatures: Vec<String> = self.0.iter().filter_map(sign).collect();
        signatures.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Ended, Exit, Halt};

    fn at(seconds: u64) -> Instant {
        Instant::at(Duration::from_secs(seconds))
    }

    fn failed() -> Fact {
        Fact::Failed {
            news: crate::engine::News::Alert,
            why: Ended::Exit(Exit::Code(1)),
        }
    }

    #[test]
    fn a_storm_is_counted_and_a_halt_goes_out_of_it() {
        let limit = Some(AlertLimit {
            alerts: 2,
            window: Duration::from_secs(60),
        });
        let halted = Fact::Halted {
            why: Halt::RetriesExhausted { tries: 5 },
        };
        let mut limiter = Limiter::default();
        for (second, fact, expect) in [
            (0, failed(), Ok(0)),
            (1, failed(), Ok(0)),
            (2, failed(), Err(1)),
            (3, failed(), Err(2)),
            (4, halted.clone(), Ok(2)),
            (5, halted, Ok(0)),
            (6, failed(), Err(1)),
            // The window slides: the alert sent at 4 has left it, the one sent at 5 has not.
            (64, failed(), Ok(1)),
            (64, failed(), Err(1)),
            (65, failed(), Ok(1)),
        ] {
            assert_eq!(limiter.admit(limit, &fact, at(second)), expect, "{second}");
        }
    }

    #[test]
    fn without_a_limit_all_go_out() {
        let mut limiter = Limiter::default();
        for _ in 0..100 {
            assert_eq!(limiter.admit(None, &failed(), at(0)), Ok(0));
        }
    }

    #[test]
    fn what_passes_is_tried_again_and_what_does_not_is_not() {
        let first = |answer| Tries::new(Duration::from_secs(60), at(0), 7).classify(answer, at(1));
        for code in [200, 202, 204, 299] {
            assert_eq!(first(Answer::Status(code, None)), Next::Delivered, "{code}");
        }
        for code in [100, 301, 308, 400, 401, 404, 410, 422, 600] {
            assert_eq!(first(Answer::Status(code, None)), Next::Lost, "{code}");
        }
        let passing = [408, 425, 429, 500, 502, 503, 599].map(|code| Answer::Status(code, None));
        for answer in passing.into_iter().chain([Answer::Nothing]) {
            let Next::Again(pause) = first(answer) else {
                panic!("{answer:?} is final")
            };
            assert!((900..=1100).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_end_with_the_deadline() {
        let mut tries = Tries::new(Duration::from_secs(3600), at(0), 7);
        let (mut now, mut pauses) = (at(0), Vec::new());
        while let Next::Again(pause) = tries.classify(Answer::Nothing, now) {
            pauses.push(pause.as_secs_f64());
            now = now + pause;
            assert!(now <= at(3600));
        }
        for (i, pause) in (0..8).zip(&pauses) {
            let exact = 2_f64.powi(i);
            assert!((exact * 0.9..=exact * 1.1).contains(pause), "{i}: {pause}");
        }
        let longest = pauses.iter().copied().fold(0.0, f64::max);
        assert!((270.0..=300.0).contains(&longest), "{longest}");
        assert!(
            now > at(3300),
            "it is tried until there is no time left: {now:?}"
        );
        assert_eq!(tries.failed() as usize, pauses.len() + 1);
    }

    #[test]
    fn a_receiver_is_left_alone_as_long_as_it_wants() {
        let wants = |seconds| {
            let answer = Answer::Status(429, Some(Duration::from_secs(seconds)));
            Tries::new(Duration::from_secs(60), at(0), 7).classify(answer, at(10))
        };
        assert_eq!(wants(50), Next::Again(Duration::from_secs(50)));
        assert_eq!(wants(51), Next::Lost, "there is no time for that");
        assert!(matches!(wants(0), Next::Again(pause) if !pause.is_zero()));
    }

    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        // The example of the reference libraries of Standard Webhooks.
        let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let body = br#"{"test": 2432232314}"#;
        let expect = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let keys = SigningKeys::parse(key).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(keys.sign(id, 1_614_265_330, body), expect);
        // During key rotation, the receiver accepts either key.
        let both = format!("\nwhsec_{}\r\n{key}\n", BASE64_STANDARD.encode([7; 32]));
        let keys = SigningKeys::parse(&both).unwrap_or_else(|why| panic!("{why}"));
        let signed = keys.sign(id, 1_614_265_330, body);
        assert_eq!(signed.split(' ').count(), 2);
        assert!(signed.ends_with(expect), "{signed}");
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_shown() {
        let short = format!("whsec_{}", BASE64_STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", BASE64_STANDARD.encode([7; 65]));
        let plain = BASE64_STANDARD.encode([7; 32]);
        for text in [
            "", "\n", "hunter2", "whsec_", "whsec_h!", &short, &long, &plain,
        ] {
            let why = SigningKeys::parse(text).err();
            assert!(why.is_some_and(|why| !why.contains("hunter2")), "{text}");
        }
    }
}
