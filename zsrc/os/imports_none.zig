//! As imports_linux.zig, for systems that golibx can't do it on yet.
pub const supported = false;

pub const Redirect = struct {
    name: []const u8,
    from: usize,
    to: usize,
    changed: u32 = 0,
    refused: u32 = 0,

    pub fn scan(_: *Redirect) void {}
};
