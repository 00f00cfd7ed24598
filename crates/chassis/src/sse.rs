//! Reads an event stream (WHATWG HTML, 9.2.6) from chunks that end anywhere.

/// One event. What was not sent is empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Event<'t> {
    /// The last `id` field.
    pub id: &'t str,
    /// The `event` field.
    pub name: &'t str,
    /// The `data` field; ours have one line.
    pub data: &'t str,
}

/// The unfinished rest of what was read.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes a chunk; calls `each` for every event that is whole by now. Comments and what is not UTF-8 are passed over.
    pub fn feed(&mut self, chunk: &[u8], mut each: impl FnMut(Event<'_>)) {
        if self.rest.is_empty() {
            let used = events(chunk, &mut each);
            self.rest.extend_from_slice(&chunk[used..]);
        } else {
            self.rest.extend_from_slice(chunk);
            let used = events(&self.rest, &mut each);
            self.rest.drain(..used);
        }
    }
}

/// Calls `each` for the whole events in `bytes`; tells how many bytes they were.
fn events(bytes: &[u8], each: &mut impl FnMut(Event<'_>)) -> usize {
    let mut used = 0;
    while let Some(end) = bytes[used..].windows(2).position(|pair| pair == b"\n\n") {
        let block = &bytes[used..used + end];
        used += end + 2;
        let Ok(block) = std::str::from_utf8(block) else { continue };
        let mut event = Event { id: "", name: "", data: "" };
        let mut any = false;
        for line in block.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = value,
                "event" => event.name = value,
                "data" => event.data = value,
                _ => continue,
            }
            any = true;
        }
        if any {
            each(event);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\n\nid: 1\nevent: a.execute\ndata: {\"x\":1}\n\n:\n\nid: 2\nevent: b\ndata: {}\n\n";

    fn collect(chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |e| seen.push(format!("{} {} {}", e.id, e.name, e.data)));
        }
        seen
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let whole = collect(&[STREAM.as_bytes()]);
        assert_eq!(whole, ["1 a.execute {\"x\":1}", "2 b {}"]);
        for cut in 0..STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(cut);
            assert_eq!(collect(&[head, tail]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(collect(&single), whole);
    }

    #[test]
    fn an_unfinished_event_is_not_told() {
        assert!(collect(&[b"id: 1\ndata: {}\n"]).is_empty());
    }
}
