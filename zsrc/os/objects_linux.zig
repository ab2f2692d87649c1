//! The libraries that are loaded, as the loader lists them: dl_iterate_phdr of link.h.
const elf = @import("std").elf;

/// struct dl_phdr_info. The two last fields are there only if the size that the callback is given
/// says so.
pub const Object = extern struct {
    base: usize,
    name: ?[*:0]const u8,
    headers: [*]const elf.Elf64.Phdr,
    header_count: u16,
    adds: u64,
    subs: u64,
    tls_module: usize,
    tls_data: ?[*]const usize,
};

pub extern "c" fn dl_iterate_phdr(
    callback: *const fn (*Object, usize, ?*anyopaque) callconv(.c) c_int,
    context: ?*anyopaque,
) c_int;
