//! SMB2 SET_INFO: 2.2.39 and 2.2.40; processing in 3.3.5.21.

mod disposition;
mod file;
mod rename;

use shoal_protocol::NtStatus;
use shoal_protocol::dtyp::security_descriptor::{SecurityDescriptor, SecurityInformation};
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::file_info::FileInformationClass;
use shoal_protocol::fscc::fs_info::FsInformationClass;
use shoal_protocol::smb2::set_info::{SetInfoRequest, SetInfoResponse, info_type};

use crate::access;
use crate::context::Context;
use crate::reply::Reply;
use crate::state::open::{Object, Open};

/// Answers a SET_INFO.
pub async fn handle(cx: &Context, request: SetInfoRequest) -> Result<Reply, NtStatus> {
    let open = cx.open(request.file_id)?;
    match request.info_type {
        info_type::FILE => set_file(cx, &open, &request).await?,
        info_type::FILESYSTEM => set_filesystem(&request)?,
        info_type::SECURITY => set_security(&open, &request)?,
        info_type::QUOTA => return Err(NtStatus::NOT_SUPPORTED),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    }
    Ok(SetInfoResponse {}.into())
}

async fn set_file(cx: &Context, open: &Open, request: &SetInfoRequest) -> Result<(), NtStatus> {
    let class =
        FileInformationClass::try_from(request.file_info_class).map_err(|_| NtStatus::INVALID_INFO_CLASS)?;
    let disk = match &open.object {
        Object::Disk(disk) => disk,
        // A pipe of this server always passes messages, and reads of it wait.
        Object::Pipe(_) if class == FileInformationClass::Pipe => return Ok(()),
        Object::Pipe(_) => return Err(NtStatus::NOT_SUPPORTED),
    };
    let data = &request.buffer;
    match class {
        FileInformationClass::Basic => file::set_basic(cx, open, disk, data).await,
        FileInformationClass::EndOfFile => file::set_end_of_file(cx, open, disk, data).await,
        FileInformationClass::Allocation => file::set_allocation(cx, open, disk, data).await,
        FileInformationClass::Position => file::set_position(disk, data),
        FileInformationClass::Mode => file::set_mode(disk, data),
        FileInformationClass::Disposition => disposition::set(open, disk, data).await,
        FileInformationClass::DispositionEx => disposition::set_ex(open, disk, data).await,
        FileInformationClass::Rename => rename::rename(cx, open, disk, data).await,
        FileInformationClass::RenameEx => rename::rename_ex(cx, open, disk, data).await,
        FileInformationClass::Link => rename::link(cx, open, disk, data).await,
        FileInformationClass::LinkEx => rename::link_ex(cx, open, disk, data).await,
        FileInformationClass::FullEa => {
            access::require(open.granted_access, AccessMask::WRITE_EA)?;
            Err(NtStatus::EAS_NOT_SUPPORTED)
        }
        // It takes a privilege (SeManageVolumePrivilege) that nobody has here.
        FileInformationClass::ValidDataLength => Err(NtStatus::PRIVILEGE_NOT_HELD),
        FileInformationClass::ShortName => Err(NtStatus::PRIVILEGE_NOT_HELD),
        _ => Err(NtStatus::INVALID_INFO_CLASS),
    }
}

/// 3.3.5.21.2: what can be set of a volume is for administrators.
fn set_filesystem(request: &SetInfoRequest) -> Result<(), NtStatus> {
    match FsInformationClass::try_from(request.file_info_class) {
        Ok(FsInformationClass::Control | FsInformationClass::ObjectId | FsInformationClass::Label) => {
            Err(NtStatus::ACCESS_DENIED)
        }
        _ => Err(NtStatus::INVALID_INFO_CLASS),
    }
}

/// 3.3.5.21.3. Descriptors are not stored: what is asked for is checked, and then has no effect, as with Samba on a file system
/// without access control lists. The volume says that it keeps none (no FILE_PERSISTENT_ACLS).
fn set_security(open: &Open, request: &SetInfoRequest) -> Result<(), NtStatus> {
    let parts = SecurityInformation(request.additional_information);
    let mut needed = AccessMask::EMPTY;
    if parts.intersects(SecurityInformation::OWNER | SecurityInformation::GROUP | SecurityInformation::LABEL)
    {
        needed |= AccessMask::WRITE_OWNER;
    }
    if parts.intersects(SecurityInformation::DACL) {
        needed |= AccessMask::WRITE_DAC;
    }
    if parts.intersects(SecurityInformation::SACL) {
        needed |= AccessMask::ACCESS_SYSTEM_SECURITY;
    }
    access::require(open.granted_access, needed)?;
    open.disk()?;
    SecurityDescriptor::parse(&request.buffer).map_err(|_| NtStatus::INVALID_SECURITY_DESCR)?;
    Ok(())
}
