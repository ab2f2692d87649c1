//! os.close(), os.closerange() and os.dup2(): golibx is told of files that the program closes by
//! number, and its own descriptors are left alone.
//!
//! Programs that become daemons close every number there is. A socket that a goroutine waits for is
//! closed for it as by its own close(), also if the number is another file's an instant later. The
//! runtime's descriptors are not the program's: for it they are not open.
//!
//! The functions are replaced where the interpreter has them, so that it does not matter which
//! modules have imported them before. Where they do not look as expected they stay as they are.
const std = @import("std");
const builtin = @import("builtin");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const host = @import("host.zig");
const replace = @import("replace.zig");

const lane = &host.the_lane;

const Replaced = struct { name: []const u8, function: py.Function };
const replaced = [_]Replaced{
    .{ .name = "close", .function = .{ .keywords = close } },
    .{ .name = "dup2", .function = .{ .keywords = dup2 } },
    .{ .name = "closerange", .function = .{ .fast = closerange } },
};
const Fast = @FieldType(py.Function, "fast");
const Keywords = @FieldType(py.Function, "keywords");
var originals: [replaced.len]?*const anyopaque = @splat(null);

/// When the module is loaded. Sets no exception.
pub fn watch() void {
    if (builtin.os.tag == .windows) return;
    for (replaced, &originals) |each, *original| {
        const definition = replace.definitionOf("posix", each.name) orelse continue;
        if (definition.flags != each.function.flags()) continue;
        original.* = definition.function;
        definition.function = each.function.address();
    }
}

/// Null if it is no descriptor: then the function says so itself.
fn descriptor(o: *py.Object) ?i32 {
    return py.intIn(i32, o);
}

fn refuse(e: std.c.E) ?*py.Object {
    os.net.setErrno(@backingInt(e));
    return py.PyErr_SetFromErrno(py.exc.osError());
}

/// Before the files are closed: from here on any other file may get their numbers.
fn tell(low: i32, high: i32) void {
    if (lane.live) host.poller.loseRange(low, high);
}

fn close(o: ?*py.Object, args: py.Args, n: py.Ssize, names: ?*py.Object) callconv(.c) ?*py.Object {
    const given = n + if (names) |tuple| py.PyTuple_Size(tuple) else 0;
    if (given == 1) if (descriptor(args[0])) |fd| {
        if (os.descriptors.isKept(fd)) return refuse(.BADF);
        tell(fd, fd +| 1);
    };
    const original: Keywords = @ptrCast(@alignCast(originals[0].?));
    return original(o, args, n, names);
}

fn dup2(o: ?*py.Object, args: py.Args, n: py.Ssize, names: ?*py.Object) callconv(.c) ?*py.Object {
    if (n >= 2) if (descriptor(args[1])) |fd| {
        // As the kernel says it of a number that is about to be opened.
        if (os.descriptors.isKept(fd)) return refuse(.BUSY);
        if (descriptor(args[0]) != fd) tell(fd, fd +| 1);
    };
    const original: Keywords = @ptrCast(@alignCast(originals[1].?));
    return original(o, args, n, names);
}

fn closerange(o: ?*py.Object, args: py.Args, n: py.Ssize) callconv(.c) ?*py.Object {
    const original: Fast = @ptrCast(@alignCast(originals[2].?));
    if (n != 2) return original(o, args, n);
    var low = descriptor(args[0]) orelse return original(o, args, n);
    const high = descriptor(args[1]) orelse return original(o, args, n);
    tell(low, high);
    while (os.descriptors.firstKept(low)) |kept| {
        if (kept >= high) break;
        if (!closeBetween(original, o, low, kept)) return null;
        low = kept + 1;
    }
    return if (closeBetween(original, o, low, high)) py.returnNone() else null;
}

fn closeBetween(original: Fast, o: ?*py.Object, low: i32, high: i32) bool {
    if (low >= high) return true;
    const from = py.PyLong_FromLongLong(low) orelse return false;
    defer py.decref(from);
    const to = py.PyLong_FromLongLong(high) orelse return false;
    defer py.decref(to);
    const result = original(o, &.{ from, to }, 2) orelse return false;
    py.decref(result);
    return true;
}

/// keep_descriptor(fd)
pub fn keep(value: i64) void {
    if (std.math.cast(i32, value)) |number| os.descriptors.keep(number);
}

/// leave_descriptor(fd)
pub fn leave(value: i64) void {
    if (std.math.cast(i32, value)) |number| os.descriptors.release(number);
}
