//! What a golibx._core.Socket tells of itself, and its options: the calls that never wait.
//!
//! Each looks whether the socket is open and makes its system call with the interpreter's lock in
//! one go. So the descriptor cannot be closed meanwhile, nor its number become another file's.
const std = @import("std");
const os = @import("../../os/os.zig");
const py = @import("../py.zig");
const socket = @import("socket.zig");

const net = os.net;
const Socket = socket.Socket;

/// The descriptor; null with an exception set.
fn descriptor(s: *const Socket) ?os.Handle {
    if (s.fd != .none) return s.fd;
    _ = socket.osError(net.bad_descriptor);
    return null;
}

pub fn ownName(s: *Socket) ?*py.Object {
    var address: net.Address = .{};
    const fd = descriptor(s) orelse return null;
    if (!net.ownName(fd, &address)) return socket.osError(net.getErrno());
    return addressOf(&address);
}

pub fn peerName(s: *Socket) ?*py.Object {
    var address: net.Address = .{};
    const fd = descriptor(s) orelse return null;
    if (!net.peerName(fd, &address)) return socket.osError(net.getErrno());
    return addressOf(&address);
}

/// As Python's socket module gives it: ("1.2.3.4", port), ("::1", port, flow info, scope id), or of
/// a UNIX socket its path, bytes if it is abstract.
pub fn addressOf(a: *const net.Address) ?*py.Object {
    switch (a.family()) {
        .ipv4 => {
            const b = a.ipv4();
            const text = py.PyUnicode_FromFormat(
                "%d.%d.%d.%d",
                @as(c_int, b[0]),
                @as(c_int, b[1]),
                @as(c_int, b[2]),
                @as(c_int, b[3]),
            ) orelse return null;
            defer py.decref(text);
            const port = py.PyLong_FromLongLong(a.port()) orelse return null;
            defer py.decref(port);
            return py.PyTuple_Pack(2, text, port);
        },
        .ipv6 => {
            const text = ipv6Text(a.ipv6()) orelse return null;
            defer py.decref(text);
            const port = py.PyLong_FromLongLong(a.port()) orelse return null;
            defer py.decref(port);
            const flow = py.PyLong_FromLongLong(a.flowInfo()) orelse return null;
            defer py.decref(flow);
            const scope = py.PyLong_FromLongLong(a.scopeId()) orelse return null;
            defer py.decref(scope);
            return py.PyTuple_Pack(4, text, port, flow, scope);
        },
        .unix => {
            const path = a.unixPath();
            // Linux's abstract ones begin with a zero.
            if (path.len == 0 or path[0] != 0)
                return py.PyUnicode_DecodeFSDefaultAndSize(path.ptr, @intCast(path.len));
            return py.PyBytes_FromStringAndSize(path.ptr, @intCast(path.len));
        },
        .other => return py.returnNone(),
    }
}

extern "c" fn inet_ntop(
    of_family: c_int,
    source: *const anyopaque,
    out: [*]u8,
    size: std.c.socklen_t,
) ?[*:0]const u8;

fn ipv6Text(bytes: *const [16]u8) ?*py.Object {
    if (@import("builtin").os.tag == .windows) return py.PyUnicode_FromString("::");
    var buffer: [64]u8 = undefined;
    const text = inet_ntop(
        std.c.AF.INET6,
        bytes,
        &buffer,
        buffer.len,
    ) orelse return py.PyUnicode_FromString("::");
    return py.PyUnicode_FromString(text);
}

/// The number of the address family.
pub fn family(s: *Socket) ?*py.Object {
    var address: net.Address = .{};
    const fd = descriptor(s) orelse return null;
    if (!net.ownName(fd, &address)) return socket.osError(net.getErrno());
    return py.PyLong_FromLongLong(address.familyNumber());
}

/// What a buffer of getsockopt() may have, as in the standard library.
const most_option_bytes = 1024;

/// Null with an exception set.
fn number(o: *py.Object) ?c_int {
    const value = py.PyLong_AsLongLong(o);
    if (value == -1 and py.PyErr_Occurred() != null) return null;
    return std.math.cast(c_int, value) orelse {
        _ = py.PyErr_Format(py.exc.overflowError(), "%R is no C int", o);
        return null;
    };
}

pub fn getOption(s: *Socket, which: *py.Object, name: *py.Object, buflen: ?*py.Object) ?*py.Object {
    const level = number(which) orelse return null;
    const option = number(name) orelse return null;
    const size = if (buflen) |each| number(each) orelse return null else 0;
    if (size < 0 or size > most_option_bytes) return py.raise(
        py.exc.osError(),
        "getsockopt() takes a buflen from 0 to 1024, not {d}",
        .{size},
    );
    const fd = descriptor(s) orelse return null;
    if (size == 0) {
        var value: c_int = 0;
        if (net.getOption(fd, level, option, std.mem.asBytes(&value)) == null)
            return socket.osError(net.getErrno());
        return py.PyLong_FromLongLong(value);
    }
    var bytes: [most_option_bytes]u8 = undefined;
    const len = net.getOption(fd, level, option, bytes[0..@intCast(size)]) orelse
        return socket.osError(net.getErrno());
    return py.PyBytes_FromStringAndSize(&bytes, @intCast(len));
}

pub fn setOption(s: *Socket, which: *py.Object, name: *py.Object, to: *py.Object) ?*py.Object {
    const level = number(which) orelse return null;
    const option = number(name) orelse return null;
    if (py.isInt(to)) {
        const value = number(to) orelse return null;
        return set(s, level, option, std.mem.asBytes(&value));
    }
    var view: py.Buffer = undefined;
    if (py.PyObject_GetBuffer(to, &view, py.PyBUF_SIMPLE) != 0) return null;
    defer py.PyBuffer_Release(&view);
    return set(s, level, option, socket.bytesOf(&view));
}

fn set(s: *Socket, level: c_int, option: c_int, bytes: []const u8) ?*py.Object {
    const fd = descriptor(s) orelse return null;
    if (!net.setOption(fd, level, option, bytes)) return socket.osError(net.getErrno());
    return py.returnNone();
}
