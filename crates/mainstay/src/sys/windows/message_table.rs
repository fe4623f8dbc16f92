//! The texts of our events, inside the program: an RT_MESSAGETABLE resource, written by the assembler that is part of rustc.
//!
//! A resource is a tree of three levels (type, name, language) in the section `.rsrc`, whose leaf says where in the loaded image the data
//! lie (`.rva`). Microsoft's linkers want tree and data in `.rsrc$01` and `.rsrc$02`; GNU's merges the trees of all objects, and wants
//! each in one piece. Texts are ASCII, which every code page has. A linker takes the object only because [`keep`] names it.

#![expect(unsafe_code, reason = "assembly, which is data only here")]

use std::ffi::c_void;

use crate::logger::for_each_event;

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
            // Type 11, RT_MESSAGETABLE. A directory: flags, time, version, count of names, count of ids; then id and place of each.
            "mainstay_message_resource:",
            ".long 0, 0, 0; .short 0, 1; .long 11, 0x80000018",
            // Name 1.
            ".long 0, 0, 0; .short 0, 1; .long 1, 0x80000030",
            // Language 0, neutral: found whatever the user's is.
            ".long 0, 0, 0; .short 0, 1; .long 0, 0x48",
            ".rva mainstay_message_table",
            ".long mainstay_message_table_end - mainstay_message_table, 0, 0",
            ".globl mainstay_message_resource",
            section!(data),
            ".p2align 2",
            "mainstay_message_table:",
            // How many blocks; of each the first id, the last, and where its texts are.
            concat!(".long 0" $(, " + 1 /* ", $kind, " */")*),
            $(concat!(
                ".long ", $id, ", ", $id,
                ", mainstay_message_", stringify!($name), " - mainstay_message_table"
            ),)*
            // A text: its length with this head and padding, 0 for ASCII, and the text with its NUL.
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

// SAFETY: it is defined above, and only its address is taken.
unsafe extern "C" {
    safe static mainstay_message_resource: c_void;
}

/// Has the linker take the resource into every program that calls this.
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

    use crate::logger::Event;

    /// What Windows makes of an event's text in this very program.
    fn formatted(id: u32, message: &str) -> String {
        let message: Vec<u16> = message.encode_utf16().chain([0]).collect();
        let inserted = [message.as_ptr().cast::<i8>()];
        let mut text = vec![0; 1024];
        // SAFETY: null is the program's own module, which stays; the text has the length that is given, no message has more than one
        // insertion, and that ends with a NUL.
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
