//! The texts of the events, inside the program: an RT_MESSAGETABLE resource, written by the
//! assembler that is part of rustc.
//!
//! A resource is a tree of three levels (type, name, language) in the section `.rsrc`. Its leaf
//! contains the address of the data in the loaded image (`.rva`). Microsoft's linkers expect the
//! tree and the data in `.rsrc$01` and `.rsrc$02`. GNU's linker merges the trees of all objects and
//! expects each in one piece. Texts are ASCII, which every code page includes. The linker includes
//! the object only because [`keep`] refers to it.

#![expect(unsafe_code, reason = "assembly, which is data only here")]

use std::ffi::c_void;

use crate::event::for_each_event;

#[cfg(target_env = "msvc")]
macro_rules! section {
    (tree) => {
        ".section .rsrc$01,\"dr\""
    };
    (data) => {
        ".section .rsrc$02,\"dr\""
    };
}
#[cfg(not(target_env = "msvc"))]
macro_rules! section {
    ($_:ident) => {
        ".section .rsrc,\"dr\""
    };
}

macro_rules! define {
    ($($name:ident $kind:literal $id:literal $text:literal;)*) => {
        core::arch::global_asm!(
            section!(tree),
            ".p2align 2",
            // Type 11, RT_MESSAGETABLE. A directory: flags, time, version, number of names, number
            // of IDs; then the ID and the offset of each entry.
            "mainstay_message_resource:",
            ".long 0, 0, 0; .short 0, 1; .long 11, 0x80000018",
            // Name 1.
            ".long 0, 0, 0; .short 0, 1; .long 1, 0x80000030",
            // Language 0, neutral: found for every user language.
            ".long 0, 0, 0; .short 0, 1; .long 0, 0x48",
            ".rva mainstay_message_table",
            ".long mainstay_message_table_end - mainstay_message_table, 0, 0",
            ".globl mainstay_message_resource",
            section!(data),
            ".p2align 2",
            "mainstay_message_table:",
            // The number of blocks; for each block, its first ID, its last ID and the offset of its
            // texts.
            concat!(".long 0" $(, " + 1 /* ", $kind, " */")*),
            $(concat!(
                ".long ", $id, ", ", $id,
                ", mainstay_message_", stringify!($name), " - mainstay_message_table"
            ),)*
            // A text: its length including this header and padding, 0 for ASCII, and the text with
            // its NUL.
            $(
                concat!("mainstay_message_", stringify!($name), ":"),
                concat!(
                    ".short mainstay_message_", stringify!($name),
                    "_end - mainstay_message_", stringify!($name), ", 0"
                ),
                concat!(".asciz \"", $text, "\\r\\n\""),
                ".p2align 2",
                concat!("mainstay_message_", stringify!($name), "_end:"),
            )*
            "mainstay_message_table_end:",
            ".text",
        );
    };
}
for_each_event!(define);

// SAFETY: it is defined above, and only its address is used.
unsafe extern "C" {
    safe static mainstay_message_resource: c_void;
}

/// Makes the linker include the resource in every program that calls this.
pub(super) fn keep() {
    std::hint::black_box(&raw const mainstay_message_resource);
}

#[cfg(test)]
mod tests {
    use std::ptr::null;

    use windows_sys::Win32::System::Diagnostics::Debug::{
        FORMAT_MESSAGE_ARGUMENT_ARRAY, FORMAT_MESSAGE_FROM_HMODULE, FormatMessageW,
    };
    use windows_sys::Win32::System::LibraryLoader::GetModuleHandleW;

    use crate::event::Event;

    /// Returns the text that Windows formats for an event from this program's own resource.
    fn formatted(id: u32, message: &str) -> String {
        let message: Vec<u16> = message.encode_utf16().chain([0]).collect();
        let inserted = [message.as_ptr().cast::<i8>()];
        let mut text = vec![0; 1024];
        // SAFETY: null is the program's own module, which stays loaded; the text has the given
        // length; no message has more than one insertion, which ends with a NUL.
        let length = unsafe {
            FormatMessageW(
                FORMAT_MESSAGE_FROM_HMODULE | FORMAT_MESSAGE_ARGUMENT_ARRAY,
                GetModuleHandleW(null()).cast_const(),
                id,
                0,
                text.as_mut_ptr(),
                1024,
                inserted.as_ptr().cast(),
            )
        };
        assert_ne!(length, 0, "{id:#x}: {}", std::io::Error::last_os_error());
        text.truncate(length as usize);
        String::from_utf16(&text).unwrap()
    }

    #[test]
    fn windows_finds_every_text_in_the_program() {
        super::keep();
        for event in Event::ALL {
            let expect = event.text().replace("%1", "drei Stück") + "\r\n";
            assert_eq!(formatted(event.id(), "drei Stück"), expect);
        }
    }
}
