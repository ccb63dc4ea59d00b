//! File information: 3.3.5.20.1, MS-FSCC 2.4.

use bytes::BytesMut;
use shoal_protocol::NtStatus;
use shoal_protocol::Utf16;
use shoal_protocol::fscc::access::AccessMask;
use shoal_protocol::fscc::file_info::*;
use shoal_protocol::smb2::query_info::QueryInfoRequest;
use shoal_vfs::{Fold, Name};

use super::{answer, require_room};
use crate::access;
use crate::context::Context;
use crate::convert::{self, Facts};
use crate::pipe::Pipe;
use crate::reply::Reply;
use crate::share::ShareKind;
use crate::state::open::{DiskObject, Object, Open};

/// Alignment that a client's buffers need: none. Nothing is handed to a device.
const ALIGNMENT: u32 = 0;

/// Answers what is asked about a file or pipe.
pub async fn query(cx: &Context, open: &Open, request: &QueryInfoRequest) -> Result<Reply, NtStatus> {
    let class =
        FileInformationClass::try_from(request.file_info_class).map_err(|_| NtStatus::INVALID_INFO_CLASS)?;
    let needed = match class {
        FileInformationClass::Basic
        | FileInformationClass::All
        | FileInformationClass::NetworkOpen
        | FileInformationClass::AttributeTag => AccessMask::READ_ATTRIBUTES,
        FileInformationClass::FullEa => AccessMask::READ_EA,
        _ => AccessMask::EMPTY,
    };
    access::require(open.granted_access, needed)?;
    require_room(request, class.least_len())?;
    let mut out = BytesMut::new();
    match &open.object {
        Object::Disk(disk) => Query { cx, open, disk }.write(class, request, &mut out).await?,
        Object::Pipe(pipe) => pipe_information(pipe, class, &mut out)?,
    }
    Ok(answer(out, request))
}

struct Query<'a> {
    cx: &'a Context,
    open: &'a Open,
    disk: &'a DiskObject,
}

impl Query<'_> {
    async fn write(
        &self,
        class: FileInformationClass,
        request: &QueryInfoRequest,
        out: &mut BytesMut,
    ) -> Result<(), NtStatus> {
        match class {
            FileInformationClass::Ea => EaInformation { ea_size: 0 }.encode(out),
            FileInformationClass::Access => self.access().encode(out),
            FileInformationClass::Position => self.position().encode(out),
            FileInformationClass::Mode => self.mode().encode(out),
            FileInformationClass::Alignment => alignment().encode(out),
            FileInformationClass::NormalizedName => {
                // 3.3.5.20.1: only clients that speak 3.1.1 ask for it.
                if self.cx.connection.dialect() != Some(shoal_protocol::smb2::Dialect::Smb311) {
                    return Err(NtStatus::NOT_SUPPORTED);
                }
                NormalizedNameInformation { file_name: joined(&self.names()?) }.encode(out);
            }
            // There are no short names; an empty one says so.
            FileInformationClass::AlternateName => AlternateNameInformation::default().encode(out),
            FileInformationClass::FullEa => return Err(NtStatus::NO_EAS_ON_FILE),
            _ => {
                let facts = convert::current_facts(self.disk).await?;
                self.write_facts(class, &facts, request, out)?;
            }
        }
        Ok(())
    }

    fn write_facts(
        &self,
        class: FileInformationClass,
        facts: &Facts,
        request: &QueryInfoRequest,
        out: &mut BytesMut,
    ) -> Result<(), NtStatus> {
        match class {
            FileInformationClass::Basic => basic(facts).encode(out),
            FileInformationClass::Standard => self.standard(facts).encode(out),
            FileInformationClass::Internal => internal(facts).encode(out),
            FileInformationClass::All => AllInformation {
                basic: basic(facts),
                standard: self.standard(facts),
                internal: internal(facts),
                ea: EaInformation { ea_size: 0 },
                access: self.access(),
                position: self.position(),
                mode: self.mode(),
                alignment: alignment(),
                name: NameInformation { file_name: rooted(&self.names()?) },
            }
            .encode(out),
            FileInformationClass::Stream => {
                // A directory has no unnamed stream.
                let mut streams = StreamEncoder::new(request.output_buffer_length as usize);
                let unnamed = StreamInformation {
                    stream_size: facts.end_of_file,
                    stream_allocation_size: facts.allocation_size,
                    stream_name: Utf16::from_str("::$DATA"),
                };
                if !facts.directory && !streams.push(&unnamed) {
                    return Err(NtStatus::BUFFER_OVERFLOW);
                }
                out.extend_from_slice(&streams.finish());
            }
            FileInformationClass::Compression => CompressionInformation {
                compressed_file_size: facts.end_of_file,
                ..CompressionInformation::default()
            }
            .encode(out),
            FileInformationClass::NetworkOpen => NetworkOpenInformation {
                creation_time: facts.creation_time,
                last_access_time: facts.last_access_time,
                last_write_time: facts.last_write_time,
                change_time: facts.change_time,
                allocation_size: facts.allocation_size,
                end_of_file: facts.end_of_file,
                file_attributes: facts.attributes,
            }
            .encode(out),
            FileInformationClass::AttributeTag => {
                AttributeTagInformation { file_attributes: facts.attributes, reparse_tag: 0 }.encode(out);
            }
            FileInformationClass::StandardLink => {
                let pending = self.delete_pending();
                StandardLinkInformation {
                    number_of_accessible_links: facts.number_of_links.saturating_sub(u32::from(pending)),
                    total_number_of_links: facts.number_of_links,
                    delete_pending: pending,
                    directory: facts.directory,
                }
                .encode(out);
            }
            FileInformationClass::Id => {
                let mut file_id = [0; 16];
                file_id[..8].copy_from_slice(&facts.index_number.to_le_bytes());
                IdInformation { volume_serial_number: facts.volume, file_id }.encode(out);
            }
            FileInformationClass::Stat => StatInformation {
                file_id: facts.index_number,
                creation_time: facts.creation_time,
                last_access_time: facts.last_access_time,
                last_write_time: facts.last_write_time,
                change_time: facts.change_time,
                allocation_size: facts.allocation_size,
                end_of_file: facts.end_of_file,
                file_attributes: facts.attributes,
                reparse_tag: 0,
                number_of_links: facts.number_of_links,
                effective_access: self.open.granted_access,
            }
            .encode(out),
            FileInformationClass::CaseSensitive if facts.directory => {
                let flags = match &self.open.tree.share.kind {
                    ShareKind::Disk { root } => u32::from(root.fold() == Fold::Sensitive),
                    ShareKind::Pipe => 0,
                };
                CaseSensitiveInformation { flags }.encode(out);
            }
            FileInformationClass::CaseSensitive => return Err(NtStatus::INVALID_PARAMETER),
            // Those that can only be set, that list directories, that are local or for pipes.
            _ => return Err(NtStatus::INVALID_INFO_CLASS),
        }
        Ok(())
    }

    fn standard(&self, facts: &Facts) -> StandardInformation {
        let delete_pending = self.delete_pending();
        StandardInformation {
            allocation_size: facts.allocation_size,
            end_of_file: facts.end_of_file,
            // A name that will be deleted no longer counts.
            number_of_links: facts.number_of_links.saturating_sub(u32::from(delete_pending)),
            delete_pending,
            directory: facts.directory,
        }
    }

    fn delete_pending(&self) -> bool {
        let opens = self.disk.node().opens();
        opens.delete_pending(&self.disk.link) || opens.is_gone(&self.disk.link)
    }

    fn access(&self) -> AccessInformation {
        AccessInformation { access_flags: self.open.granted_access }
    }

    fn position(&self) -> PositionInformation {
        PositionInformation { current_byte_offset: self.disk.changing.lock().position }
    }

    fn mode(&self) -> ModeInformation {
        ModeInformation { mode: self.disk.changing.lock().mode }
    }

    /// The names from the share's root down to the file.
    fn names(&self) -> Result<Vec<Name>, NtStatus> {
        let root = self.open.tree.share.root().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
        // A file that local processes moved out of the share has no name in it.
        self.cx.server.vfs.path(root, &self.disk.link).ok_or(NtStatus::OBJECT_PATH_NOT_FOUND)
    }
}

fn basic(facts: &Facts) -> BasicInformation {
    BasicInformation {
        creation_time: facts.creation_time,
        last_access_time: facts.last_access_time,
        last_write_time: facts.last_write_time,
        change_time: facts.change_time,
        file_attributes: facts.attributes,
    }
}

fn internal(facts: &Facts) -> InternalInformation {
    InternalInformation { index_number: facts.index_number }
}

fn alignment() -> AlignmentInformation {
    AlignmentInformation { alignment_requirement: ALIGNMENT }
}

fn joined(names: &[Name]) -> Utf16 {
    let mut path = Vec::new();
    for name in names {
        if !path.is_empty() {
            path.push(u16::from(b'\\'));
        }
        name.extend_utf16(&mut path);
    }
    Utf16(path)
}

fn rooted(names: &[Name]) -> Utf16 {
    let mut path = vec![u16::from(b'\\')];
    path.extend_from_slice(&joined(names));
    Utf16(path)
}

/// What a pipe says of itself (MS-FSA has no pipes; the values are those of Windows' npfs).
fn pipe_information(pipe: &Pipe, class: FileInformationClass, out: &mut BytesMut) -> Result<(), NtStatus> {
    match class {
        FileInformationClass::Standard => StandardInformation {
            allocation_size: u64::from(Pipe::QUOTA),
            end_of_file: pipe.readable() as u64,
            number_of_links: 1,
            delete_pending: true,
            directory: false,
        }
        .encode(out),
        FileInformationClass::Pipe => PipeInformation { read_mode: 1, completion_mode: 0 }.encode(out),
        FileInformationClass::PipeLocal => PipeLocalInformation {
            named_pipe_type: 1,
            named_pipe_configuration: 2,
            maximum_instances: u32::MAX,
            current_instances: 1,
            inbound_quota: Pipe::QUOTA,
            read_data_available: pipe.readable() as u32,
            outbound_quota: Pipe::QUOTA,
            write_quota_available: Pipe::QUOTA,
            named_pipe_state: 3,
            named_pipe_end: 0,
        }
        .encode(out),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    }
    Ok(())
}
