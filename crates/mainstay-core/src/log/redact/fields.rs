//! Matching of JSON fields by path, in one pass and without allocation of a document.
//!
//! The input need not be complete JSON: fields of a truncated line are hidden as well. Values that
//! no path leads to are skipped by counting brackets. A walk may stop anywhere and continue with
//! the next piece of an overlong line.

use super::find::{Find, What};
use crate::spec::redact::{FieldPath, Step};

/// The position in an object.
#[derive(Clone, Debug, Default)]
pub(super) struct Walker {
    state: State,
    /// The enclosing objects and lists, as deep as any path reaches.
    around: Vec<Around>,
    /// The last key, as written.
    key: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Around {
    is_list: bool,
    /// One bit for each path that leads here.
    paths: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Start,
    /// Expects a key or the end of the object.
    Key,
    InKey {
        escaped: bool,
    },
    Colon,
    /// Expects a value that these paths lead to.
    Value(u64),
    /// Inside a value, below `nest` brackets and possibly in a string. If `field` is set, the value
    /// is hidden as that field.
    Inside {
        nest: usize,
        string: bool,
        escaped: bool,
        field: Option<usize>,
    },
    /// Inside a number or a word.
    Scalar(Option<usize>),
    /// Expects a comma or a closing bracket.
    After,
    Over,
}

impl Walker {
    /// Walks over `text`, which starts at `offset` of the scanned text.
    pub(super) fn walk(
        &mut self,
        paths: &[FieldPath],
        text: &[u8],
        offset: usize,
        finds: &mut Vec<Find>,
    ) {
        // The label of a value that began in an earlier piece is already written.
        let mut begun = (0, true);
        let note =
            |(start, earlier): (usize, bool), end: usize, field: usize, finds: &mut Vec<Find>| {
                let what = if earlier {
                    What::Nothing
                } else {
                    What::Field(field)
                };
                if end > start {
                    finds.push(Find::new(offset + start..offset + end, what));
                }
            };
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let blank = b" \t\r\n".contains(&byte);
            match self.state {
                State::Start | State::Key | State::Colon | State::Value(_) | State::After
                    if blank => {}
                State::Start if byte == b'{' => {
                    let all = u64::MAX >> (64 - paths.len().clamp(1, 64));
                    self.around.push(Around {
                        is_list: false,
                        paths: all,
                    });
                    self.state = State::Key;
                }
                State::Key if byte == b'"' => {
                    self.key.clear();
                    self.state = State::InKey { escaped: false };
                }
                State::Key | State::After if byte == b'}' || byte == b']' => self.leave(),
                State::InKey { escaped } => {
                    if byte == b'"' && !escaped {
                        self.state = State::Colon;
                    } else {
                        self.key.push(byte);
                        let escaped = byte == b'\\' && !escaped;
                        self.state = State::InKey { escaped };
                    }
                }
                State::Colon if byte == b':' => self.state = State::Value(self.led_by_key(paths)),
                State::Value(led) => {
                    begun = (at, false);
                    self.enter(paths, byte, led);
                }
                State::Inside {
                    nest,
                    string,
                    escaped,
                    field,
                } => {
                    let (mut nest, mut string) = (nest, string);
                    let escapes = string && byte == b'\\' && !escaped;
                    match byte {
                        b'"' if !escaped => string = !string,
                        b'{' | b'[' if !string => nest += 1,
                        b'}' | b']' if !string => nest = nest.saturating_sub(1),
                        _ => {}
                    }
                    self.state = State::Inside {
                        nest,
                        string,
                        escaped: escapes,
                        field,
                    };
                    if nest == 0 && !string {
                        self.state = State::After;
                        if let Some(field) = field {
                            note(begun, at + 1, field, finds);
                        }
                    }
                }
                State::Scalar(field) => {
                    if b",}] \t\r\n".contains(&byte) {
                        if let Some(field) = field {
                            note(begun, at, field, finds);
                        }
                        self.state = State::After;
                        continue;
                    }
                }
                State::After if byte == b',' => {
                    self.state = match self.around.last() {
                        Some(Around { is_list: true, .. }) => State::Value(self.led_by_item(paths)),
                        _ => State::Key,
                    };
                }
                _ => {
                    self.state = State::Over;
                    return;
                }
            }
            at += 1;
        }
        if let State::Inside {
            field: Some(field), ..
        }
        | State::Scalar(Some(field)) = self.state
        {
            note(begun, text.len(), field, finds);
        }
    }

    fn enter(&mut self, paths: &[FieldPath], byte: u8, led: u64) {
        let depth = self.around.len();
        let field = bits(led).find(|index| paths[*index].steps.len() == depth);
        let opens = byte == b'{' || byte == b'[';
        self.state = match byte {
            // An empty list: its end is in place of the first item.
            b']' => return self.leave(),
            b'}' | b',' | b':' => State::Over,
            b'"' => State::Inside {
                nest: 0,
                string: true,
                escaped: false,
                field,
            },
            _ if opens && led != 0 && field.is_none() => {
                let is_list = byte == b'[';
                self.around.push(Around {
                    is_list,
                    paths: led,
                });
                if is_list {
                    State::Value(self.led_by_item(paths))
                } else {
                    State::Key
                }
            }
            _ if opens => State::Inside {
                nest: 1,
                string: false,
                escaped: false,
                field,
            },
            _ => State::Scalar(field),
        };
    }

    fn leave(&mut self) {
        self.around.pop();
        self.state = if self.around.is_empty() {
            State::Over
        } else {
            State::After
        };
    }

    fn led_by_item(&self, paths: &[FieldPath]) -> u64 {
        self.led(paths, |step| *step == Step::Items)
    }

    fn led_by_key(&self, paths: &[FieldPath]) -> u64 {
        if !self.key.contains(&b'\\') {
            return self.led(
                paths,
                |step| matches!(step, Step::Key(key) if key.as_bytes() == self.key),
            );
        }
        let mut quoted = vec![b'"'];
        quoted.extend_from_slice(&self.key);
        quoted.push(b'"');
        let plain: Option<String> = serde_json::from_slice(&quoted).ok();
        self.led(
            paths,
            |step| matches!(step, Step::Key(key) if Some(key) == plain.as_ref()),
        )
    }

    /// Returns the paths that continue from here with a step.
    fn led(&self, paths: &[FieldPath], fits: impl Fn(&Step) -> bool) -> u64 {
        let Some(around) = self.around.last() else {
            return 0;
        };
        let place = self.around.len() - 1;
        bits(around.paths)
            .filter(|index| paths[*index].steps.get(place).is_some_and(&fits))
            .fold(0, |led, index| led | 1 << index)
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (index < 64).then_some(index as usize)
    })
}
