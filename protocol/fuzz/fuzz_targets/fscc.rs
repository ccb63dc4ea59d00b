//! What SET_INFO, CREATE contexts, IOCTL and an attribute on disk carry.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use shoal_protocol::dtyp::{Acl, SecurityDescriptor, Sid};
use shoal_protocol::fscc::{DirectoryClass, DirectoryEntry, ea, file_info, fs_info, fsctl, notify, reparse};

fuzz_target!(|data: &[u8]| {
    let _ = Sid::parse(data);
    let _ = Acl::parse(data);
    if let Ok(descriptor) = SecurityDescriptor::parse(data) {
        let mut out = BytesMut::new();
        descriptor.encode(&mut out);
        assert_eq!(SecurityDescriptor::parse(&out).as_ref(), Ok(&descriptor));
    }
    let _ = ea::Ea::parse_all(data);
    let _ = ea::parse_names(data);
    let _ = file_info::BasicInformation::parse(data);
    let _ = file_info::AllInformation::parse(data);
    let _ = file_info::RenameInformation::parse(data);
    let _ = file_info::RenameInformationEx::parse(data);
    let _ = file_info::LinkInformation::parse(data);
    let _ = file_info::StreamInformation::parse_all(data);
    let _ = fs_info::VolumeInformation::parse(data);
    let _ = fs_info::LabelInformation::parse(data);
    let _ = fs_info::AttributeInformation::parse(data);
    let _ = fsctl::ValidateNegotiateInfoRequest::parse(data);
    let _ = fsctl::CopyChunkCopy::parse(data);
    let _ = fsctl::AllocatedRange::parse_all(data);
    let _ = fsctl::NetworkInterfaceInfo::parse_all(data);
    let _ = fsctl::PipeWait::parse(data);
    let _ = fsctl::parse_set_sparse(data);
    let _ = fsctl::parse_trim(data);
    let _ = notify::NotifyInformation::parse_all(data);
    let _ = reparse::ReparseData::parse(data);
    let _ = reparse::SymbolicLink::parse(data);
    for number in 0..=u8::MAX {
        if let Ok(class) = DirectoryClass::try_from(number) {
            let _ = DirectoryEntry::parse_all(class, data);
        }
    }
});
