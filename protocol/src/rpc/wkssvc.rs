//! The workstation service: MS-WKST. What is here: NetrWkstaGetInfo (0).

use bytes::Bytes;

use super::ndr::{Reader, Value};
use super::pdu::{FAULT_NDR, FAULT_OP_RANGE, Syntax};
use super::srvsvc::{PLATFORM_NT, union};
use super::{Answers, INVALID_LEVEL, ServerEntry};
use crate::Malformed;
use crate::dtyp::Guid;

/// The interface: version 1.0.
pub const SYNTAX: Syntax = Syntax {
    uuid: Guid::from_fields(0x6bff_d098, 0xa112, 0x3610, [0x98, 0x33, 0x46, 0xc3, 0xf8, 0x7e, 0x34, 0x5a]),
    version: 1,
};

/// NetrWkstaGetInfo.
pub const WKSTA_GET_INFO: u16 = 0;

/// Answers the call `opnum` with these arguments: the results' stub, or the status of a fault.
pub fn call(opnum: u16, stub: &[u8], answers: &dyn Answers) -> Result<Bytes, u32> {
    match opnum {
        WKSTA_GET_INFO => wksta_get_info(stub, answers).map_err(|_| FAULT_NDR),
        _ => Err(FAULT_OP_RANGE),
    }
}

/// MS-WKST 3.2.4.1; the structures are WKSTA_INFO_100 to 102.
fn wksta_get_info(stub: &[u8], answers: &dyn Answers) -> Result<Bytes, Malformed> {
    let mut reader = Reader::new(stub);
    reader.unique_string()?;
    let level = reader.u32()?;
    let ServerEntry { name, domain, version_major, version_minor, .. } = answers.server();
    let values = match level {
        100..=102 => {
            let mut values = vec![
                Value::Long(PLATFORM_NT),
                Value::text(&name),
                Value::text(&domain),
                Value::Long(version_major),
                Value::Long(version_minor),
            ];
            if level >= 101 {
                values.push(Value::text("")); // where the system is: not told
            }
            if level >= 102 {
                values.push(Value::Long(1)); // users logged on at the machine itself
            }
            Ok(values)
        }
        _ => Err(INVALID_LEVEL),
    };
    // WKSTA_INFO: the levels to which the interface gives a structure.
    let known = matches!(level, 100..=102 | 502 | 1010..=1062);
    Ok(union(level, known, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::srvsvc::tests::Sample;
    use proptest::prelude::*;

    fn info(level: u8) -> Bytes {
        call(WKSTA_GET_INFO, &[0, 0, 0, 0, level, 0, 0, 0], &Sample(0)).unwrap()
    }

    #[test]
    fn levels() {
        let known = [
            &[100, 0, 0, 0, 0, 0, 2, 0][..],
            &[0xF4, 1, 0, 0, 4, 0, 2, 0, 8, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 0],
            &[6, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, b'S', 0, b'H', 0, b'O', 0, b'A', 0, b'L', 0, 0, 0],
            &[10, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, b'W', 0, b'O', 0, b'R', 0, b'K', 0, b'G', 0, b'R', 0],
            &[b'O', 0, b'U', 0, b'P', 0, 0, 0],
            &[0; 4],
        ]
        .concat();
        assert_eq!(info(100)[..], known);
        assert_eq!(info(101).len(), known.len() + 4 + 16);
        assert_eq!(info(102).len(), known.len() + 4 + 16 + 4);
        assert_eq!(info(99)[..], [99, 0, 0, 0, 124, 0, 0, 0]);
        let stub = call(WKSTA_GET_INFO, &[0, 0, 0, 0, 0xF6, 1, 0, 0], &Sample(0)).unwrap();
        assert_eq!(stub[..], [0xF6, 1, 0, 0, 0, 0, 0, 0, 124, 0, 0, 0]);
        assert_eq!(call(WKSTA_GET_INFO, &[0; 7], &Sample(0)), Err(FAULT_NDR));
        assert_eq!(call(1, &[], &Sample(0)), Err(FAULT_OP_RANGE));
    }

    proptest! {
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = call(WKSTA_GET_INFO, &bytes, &Sample(1));
        }
    }
}
