//! Which slot of the cluster a key is in (Redis Cluster specification, "Key distribution model").

/// Slots of a cluster.
const SLOTS: u16 = 16384;

/// A key's slot; of `{tag}more` only the tag counts.
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    hashed.bytes().fold(0, crc16) % SLOTS
}

/// CRC-16/XMODEM, a byte at a time.
fn crc16(crc: u16, byte: u8) -> u16 {
    (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slots_are_those_of_the_specification() {
        assert_eq!("123456789".bytes().fold(0, crc16), 0x31c3);
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("{foo}:bar"), slot("foo"));
        assert_ne!(slot("{}foo"), slot("{}bar"));
    }
}
