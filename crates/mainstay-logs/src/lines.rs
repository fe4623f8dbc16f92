//! Splitting of chunks into lines, for observers of live output: a readiness pattern or a terminal.

use mainstay_core::spec::ServiceName;

/// The maximum number of bytes used of a line.
const LINE_MAX: usize = 64 << 10;

/// The unfinished line of one service.
#[derive(Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Calls `each` with every line that ends in `bytes`, without its terminator.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end];
            if self.partial.is_empty() {
                each(&line[..line.len().min(LINE_MAX)]);
            } else {
                self.keep(line);
                each(&self.partial);
                self.partial = Vec::new();
            }
            start = end + 1;
        }
        self.keep(&bytes[start..]);
    }

    /// Returns the beginning of the unfinished line.
    pub(super) fn unfinished(&self) -> &[u8] {
        &self.partial
    }

    /// Ends the unfinished line.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        let line = std::mem::take(&mut self.partial);
        if !line.is_empty() {
            each(&line);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LINE_MAX - self.partial.len();
        self.partial
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// A function that shows whole lines, as the services wrote them. It must not block.
pub(super) type Show = Box<dyn Fn(&[u8]) + Send>;

/// A terminal that shows the lines of all services.
pub(super) struct Terminal {
    show: Show,
    /// The length of the longest name so far.
    width: usize,
}

impl Terminal {
    pub(super) fn new(show: Show) -> Self {
        Self { show, width: 0 }
    }

    /// Reserves room for `name` before each line.
    pub(super) fn announce(&mut self, name: &ServiceName) {
        self.width = self.width.max(name.as_str().len());
    }

    /// Appends a line to `chunk` in the form in which it is shown.
    pub(super) fn render(&self, name: &ServiceName, line: &[u8], chunk: &mut Vec<u8>) {
        let width = self.width;
        chunk.extend_from_slice(format!("{name:width$} | ").as_bytes());
        chunk.extend_from_slice(line);
        chunk.push(b'\n');
    }

    /// Shows rendered lines.
    pub(super) fn show(&self, chunk: Vec<u8>) {
        if !chunk.is_empty() {
            (self.show)(&chunk);
        }
    }

    /// Shows an unfinished line that will not be continued.
    pub(super) fn show_rest(&self, lines: &mut Lines, name: &ServiceName) {
        let mut shown = Vec::new();
        lines.finish(|line| self.render(name, line, &mut shown));
        self.show(shown);
    }
}
