//! The calls on a stack, by the unwinder that comes with the C compiler: libgcc_s on Linux, on
//! macOS a part of the system. It is looked up when it is first needed, since not every Linux
//! program has loaded it, and a minimal system may lack it.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("os.zig");

const Context = opaque {};
const Visitor = struct {
    context: *anyopaque,
    visit: *const fn (*anyopaque, os.Call) bool,
    functions: *const Functions,
};

/// Of the Itanium C++ ABI, level I, and its extensions that all implementations have.
const Functions = struct {
    _Unwind_Backtrace: *const fn (
        *const fn (*Context, ?*anyopaque) callconv(.c) c_int,
        ?*anyopaque,
    ) callconv(.c) c_int,
    _Unwind_GetIP: *const fn (*Context) callconv(.c) usize,
    _Unwind_GetCFA: *const fn (*Context) callconv(.c) usize,
    _Unwind_GetRegionStart: *const fn (*Context) callconv(.c) usize,
};

var functions: ?Functions = null;
var looked_up = false;

extern "c" fn dlopen(path: [*:0]const u8, mode: c_int) ?*anyopaque;
extern "c" fn dlsym(handle: ?*anyopaque, name: [*:0]const u8) ?*anyopaque;

fn find() ?Functions {
    const library = if (builtin.os.tag == .linux) dlopen("libgcc_s.so.1", 1) else null; // RTLD_LAZY
    var found: Functions = undefined;
    const fields = @typeInfo(Functions).@"struct";
    inline for (fields.field_names) |name| {
        const address = if (library) |l| dlsym(l, name ++ "") else os.symbol(name ++ "");
        @field(found, name) = @ptrCast(@alignCast(address orelse return null));
    }
    return found;
}

/// Callers take turns.
pub fn eachCall(context: *anyopaque, visit: *const fn (*anyopaque, os.Call) bool) bool {
    if (!looked_up) {
        looked_up = true;
        functions = find();
    }
    const f = &(functions orelse return false);
    var visitor: Visitor = .{ .context = context, .visit = visit, .functions = f };
    _ = f._Unwind_Backtrace(onFrame, &visitor);
    return true;
}

const go_on = 0; // _URC_NO_REASON
const stop = 5; // _URC_END_OF_STACK

fn onFrame(c: *Context, raw: ?*anyopaque) callconv(.c) c_int {
    const v: *Visitor = @ptrCast(@alignCast(raw.?));
    const f = v.functions;
    // What the unwinder calls the CFA of a frame is the stack pointer in it after the return.
    const above = f._Unwind_GetCFA(c);
    const call: os.Call = .{
        .return_address = f._Unwind_GetIP(c),
        .slot = above -% @sizeOf(usize),
        .function = f._Unwind_GetRegionStart(c),
    };
    return if (v.visit(v.context, call)) go_on else stop;
}
