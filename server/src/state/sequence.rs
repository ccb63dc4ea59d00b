//! The CommandSequenceWindow and the credits: MS-SMB2 3.3.1.1, 3.3.1.2 and 3.3.5.2.3.
//!
//! Two numbers bound a connection. `credits` is what the client holds: it never exceeds the limit. The window's span, from
//! the oldest id that has not come to the newest that was granted, never exceeds twice the limit: a client that leaves
//! an id out for ever runs out of window, not we out of memory.

use std::collections::VecDeque;

use shoal_protocol::smb2::MessageId;

/// An id came that the client did not hold: the connection ends (3.3.5.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutsideWindow;

/// Which message ids the client may use, and how many credits it holds.
#[derive(Debug)]
pub struct SequenceWindow {
    /// The oldest id that has not been received.
    low: u64,
    /// The first id that has not been granted.
    high: u64,
    /// Bit (id % 64) of word (id / 64 - low / 64) says: received.
    received: VecDeque<u64>,
    credits: u32,
    credits_max: u32,
}

impl SequenceWindow {
    /// A new connection's window: the id 0 (3.3.5.1). `credits_max` is the most that the client is ever given.
    pub fn new(credits_max: u16) -> SequenceWindow {
        SequenceWindow {
            low: 0,
            high: 1,
            received: VecDeque::new(),
            credits: 1,
            credits_max: u32::from(credits_max.max(1)),
        }
    }

    /// Takes the ids `first .. first + charge` out of the window.
    pub fn receive(&mut self, first: MessageId, charge: u16) -> Result<(), OutsideWindow> {
        let charge = u64::from(charge.max(1));
        let end = first.0.checked_add(charge).ok_or(OutsideWindow)?;
        if first.0 < self.low || end > self.high || (first.0..end).any(|id| self.is_received(id)) {
            return Err(OutsideWindow);
        }
        for id in first.0..end {
            let (word, bit) = self.place(id);
            if word >= self.received.len() {
                self.received.resize(word + 1, 0);
            }
            self.received[word] |= 1 << bit;
        }
        // Every id in the window is one credit, and the ids were found there.
        self.credits -= charge as u32;
        self.advance();
        Ok(())
    }

    /// Gives the client up to `wanted` credits and says how many. At least one if it would have none left, so that it
    /// can go on (3.3.1.2), and never more than the limits allow.
    pub fn grant(&mut self, wanted: u16) -> u16 {
        let room = self.credits_max.saturating_sub(self.credits);
        let span = (u64::from(self.credits_max) * 2).saturating_sub(self.high - self.low);
        let least = if self.credits == 0 { 1 } else { 0 };
        let granted = u64::from(u32::from(wanted).max(least).min(room)).min(span);
        let granted = granted.min(u64::from(u16::MAX));
        self.high = self.high.saturating_add(granted);
        self.credits += granted as u32;
        granted as u16
    }

    /// The credits that the client holds.
    pub fn credits(&self) -> u32 {
        self.credits
    }

    fn place(&self, id: u64) -> (usize, u32) {
        ((id / 64 - self.low / 64) as usize, (id % 64) as u32)
    }

    fn is_received(&self, id: u64) -> bool {
        let (word, bit) = self.place(id);
        self.received.get(word).is_some_and(|word| word & (1 << bit) != 0)
    }

    fn advance(&mut self) {
        while let Some(&word) = self.received.front() {
            let ones = (word >> (self.low % 64)).trailing_ones() as u64;
            // A word that is received from `low` to its end is done with; go on in the next.
            let left = 64 - self.low % 64;
            self.low += ones.min(left);
            if ones < left {
                break;
            }
            self.received.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_window(granted: u16) -> SequenceWindow {
        let mut window = SequenceWindow::new(8192);
        window.receive(MessageId(0), 1).unwrap();
        assert_eq!(window.grant(granted), granted);
        window
    }

    #[test]
    fn ids_are_taken_once_in_any_order() {
        let mut window = open_window(4);
        for id in [3, 1, 4, 2] {
            assert_eq!(window.receive(MessageId(id), 1), Ok(()), "{id}");
            assert_eq!(window.receive(MessageId(id), 1), Err(OutsideWindow), "{id} again");
        }
        assert_eq!(window.credits(), 0);
        assert_eq!(window.receive(MessageId(5), 1), Err(OutsideWindow));
        assert_eq!(window.grant(0), 1, "a client without credits could not go on");
        assert_eq!(window.receive(MessageId(5), 1), Ok(()));
    }

    #[test]
    fn a_charge_takes_consecutive_ids() {
        let mut window = open_window(200);
        assert_eq!(window.receive(MessageId(3), 130), Ok(()));
        assert_eq!(window.receive(MessageId(132), 1), Err(OutsideWindow));
        assert_eq!(window.receive(MessageId(2), 2), Err(OutsideWindow), "overlaps");
        assert_eq!(window.receive(MessageId(1), 2), Ok(()));
        assert_eq!(window.receive(MessageId(133), 69), Err(OutsideWindow), "one beyond the end");
        assert_eq!(window.receive(MessageId(133), 68), Ok(()));
        assert_eq!((window.credits(), window.low, window.high), (0, 201, 201));
        assert!(window.received.len() <= 1);
    }

    #[test]
    fn grants_stay_below_the_limit_and_the_span() {
        let mut window = SequenceWindow::new(64);
        window.receive(MessageId(0), 1).unwrap();
        assert_eq!(window.grant(u16::MAX), 64);
        assert_eq!(window.grant(1), 0);
        // The id 1 never comes.
        for id in 2..128 {
            assert_eq!(window.receive(MessageId(id), 1), Ok(()), "{id}");
            window.grant(1);
        }
        assert_eq!(window.high - window.low, 128);
        assert_eq!(window.receive(MessageId(1), 1), Ok(()));
        assert_eq!(window.grant(u16::MAX), 63);
    }

    #[test]
    fn numbers_at_the_end_of_the_world() {
        let mut window = open_window(10);
        assert_eq!(window.receive(MessageId(u64::MAX), 1), Err(OutsideWindow));
        assert_eq!(window.receive(MessageId(u64::MAX - 1), 1), Err(OutsideWindow));
        assert_eq!(window.receive(MessageId(1), u16::MAX), Err(OutsideWindow));
        assert_eq!(window.receive(MessageId(0), 1), Err(OutsideWindow), "used already");
    }
}
