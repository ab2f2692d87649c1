//! requests_linux.zig on systems where there is nothing like it yet: no other process can ask, and
//! signals do what they do in any program.
pub const supported = false;

pub const Request = union(enum) { stop, signal: struct { quit: bool }, connection: i32 };

pub const quit_signal: u32 = 3;

pub fn open(_: bool) bool {
    return false;
}
pub fn close() void {}
pub fn stop() void {}
pub fn wait() Request {
    return .stop;
}
pub fn mayAsk(_: i32) ?i32 {
    return null;
}

pub const Line = union(enum) { text: []const u8, none, too_long };

pub fn receiveLine(_: i32, _: []u8, _: i32, _: i32) Line {
    return .none;
}
pub fn send(_: i32, _: []const u8) bool {
    return false;
}
pub fn limitSends(_: i32) void {}
pub fn hangUp(_: i32) void {}
pub fn exitProcess(_: u8) noreturn {
    @panic("nobody can have asked for it");
}
pub fn takeSignal(_: u32, _: bool) bool {
    return false;
}
