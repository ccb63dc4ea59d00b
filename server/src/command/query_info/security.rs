//! Descriptors: 3.3.5.20.3.
//!
//! None are stored yet. What is answered says what holds: the share's users have the rights that the share gives.

use bytes::{BufMut, Bytes, BytesMut};
use shoal_protocol::NtStatus;
use shoal_protocol::dtyp::acl::{Ace, AceFlags, Acl};
use shoal_protocol::dtyp::security_descriptor::{SecurityDescriptor, SecurityInformation};
use shoal_protocol::dtyp::sid::Sid;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::smb2::Dialect;
use shoal_protocol::smb2::error::ErrorResponse;
use shoal_protocol::smb2::query_info::{QueryInfoRequest, QueryInfoResponse};

use crate::access;
use crate::context::Context;
use crate::reply::Reply;
use crate::state::open::{DiskObject, Open};

/// Answers what is asked about an open's descriptor.
pub fn query(cx: &Context, open: &Open, request: &QueryInfoRequest) -> Result<Reply, NtStatus> {
    let parts = SecurityInformation(request.additional_information);
    // 3.3.5.20.3: the audit list takes a right of its own.
    let needed = if parts.contains(SecurityInformation::SACL) {
        AccessMask::ACCESS_SYSTEM_SECURITY
    } else {
        AccessMask::READ_CONTROL
    };
    access::require(open.granted_access, needed)?;
    let disk = open.disk()?;
    let mut out = BytesMut::new();
    descriptor(open, disk).select(parts).encode(&mut out);
    if out.len() > request.output_buffer_length as usize {
        return Ok(too_small(cx, out.len() as u32));
    }
    Ok(QueryInfoResponse { buffer: out.freeze() }.into())
}

fn descriptor(open: &Open, disk: &DiskObject) -> SecurityDescriptor {
    let flags = if disk.is_directory() {
        AceFlags::OBJECT_INHERIT | AceFlags::CONTAINER_INHERIT
    } else {
        AceFlags::EMPTY
    };
    SecurityDescriptor {
        owner: Some(Sid::administrators()),
        group: Some(Sid::users()),
        dacl: Some(Acl::new(vec![Ace::allow(Sid::everyone(), open.tree.maximal_access, flags)])),
        ..SecurityDescriptor::default()
    }
}

/// 3.3.5.20.3: BUFFER_TOO_SMALL states how large the buffer must be.
fn too_small(cx: &Context, needed: u32) -> Reply {
    let mut data = BytesMut::with_capacity(4);
    data.put_u32_le(needed);
    let data: Bytes = data.freeze();
    let contexts = cx.connection.dialect() == Some(Dialect::Smb311);
    Reply::with_status(NtStatus::BUFFER_TOO_SMALL, ErrorResponse::with_data(data, contexts))
}
