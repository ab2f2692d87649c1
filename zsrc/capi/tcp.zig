//! TCP for goroutines, over the poller: what golibx.h calls golibx_tcp_*, golibx_read and
//! golibx_write.
const std = @import("std");
const os = @import("../os/os.zig");
const capi = @import("capi.zig");
const netpoll = @import("../parallel/netpoll.zig");
const switching = lane.switching;
const lane = @import("../parallel/lane.zig");

const net = os.net;
const Desc = netpoll.Desc;
const Handle = netpoll.Handle;
const would_block: isize = -2;

fn fail(errno: std.c.E) ?*Handle {
    net.setErrno(@backingInt(errno));
    return null;
}

/// A numeric address; null with errno set if it is none.
fn parse(host: ?[*:0]const u8, number: u16, out: *net.Address) bool {
    const text = std.mem.span(host orelse {
        _ = fail(.INVAL);
        return false;
    });
    if (net.numericAddress(text, number, out)) return true;
    _ = fail(.INVAL);
    return false;
}

fn usable() bool {
    if (lane.running()) return true;
    _ = fail(.INVAL);
    return false;
}

/// Registers a new descriptor, which is closed if that fails.
fn adopt(fd: os.Handle) ?*Handle {
    return capi.openDesc(fd) orelse {
        const errno = net.getErrno();
        net.close(fd);
        net.setErrno(errno);
        return null;
    };
}

pub fn listen(host: ?[*:0]const u8, number: u16, backlog: c_int) callconv(.c) ?*Handle {
    var address: net.Address = .{};
    if (!usable() or !parse(host, number, &address)) return null;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    return switch (net.listenOn(&address, backlog)) {
        .done => |fd| adopt(@fromBackingInt(fd)),
        .again => fail(.AGAIN),
        .failed => |e| {
            net.setErrno(e);
            return null;
        },
    };
}

pub fn accept(listener: ?*Handle, deadline: i64) callconv(.c) ?*Handle {
    const handle = listener orelse return fail(.INVAL);
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const l = netpoll.incref(handle) orelse return fail(.BADF);
    defer netpoll.decref(l);
    var address: net.Address = .{};
    while (true) {
        switch (net.acceptOne(l.fd, &address)) {
            .done => |number| {
                const fd: os.Handle = @fromBackingInt(number);
                net.noDelay(fd);
                return adopt(fd);
            },
            .again => if (waitFor(l, false, deadline)) |errno| return fail(errno),
            .failed => |e| {
                net.setErrno(e);
                return null;
            },
        }
    }
}

/// Null when an attempt may succeed, else why not.
fn waitFor(d: *Desc, write_side: bool, deadline: i64) ?std.c.E {
    return switch (netpoll.wait(d, write_side, capi.limit(deadline))) {
        .ready => null,
        .closed => .BADF,
        .busy => .BUSY,
        .timeout => .TIMEDOUT,
    };
}

pub fn dial(host: ?[*:0]const u8, number: u16, deadline: i64) callconv(.c) ?*Handle {
    var address: net.Address = .{};
    if (!usable() or !parse(host, number, &address)) return null;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const fd: os.Handle = switch (net.connectTo(&address)) {
        .done => |fd| @fromBackingInt(fd),
        .again => return fail(.AGAIN),
        .failed => |e| {
            net.setErrno(e);
            return null;
        },
    };
    const handle = adopt(fd) orelse return null;
    const problem = connected(handle, deadline);
    if (problem == 0) return handle;
    _ = netpoll.close(handle, true);
    net.setErrno(problem);
    return null;
}

/// Waits for the end of a connect; 0, or what errno should be.
fn connected(handle: *Handle, deadline: i64) c_int {
    // Only the runtime's end can have closed it.
    const d = netpoll.incref(handle) orelse return @backingInt(std.c.E.BADF);
    defer netpoll.decref(d);
    while (!net.writable(d.fd)) {
        if (waitFor(d, true, deadline)) |errno| return @backingInt(errno);
    }
    const problem = net.pendingError(d.fd);
    if (problem == 0) net.noDelay(d.fd);
    return problem;
}

const invalid: c_int = @backingInt(capi.Code.invalid);
const closed: c_int = @backingInt(capi.Code.closed);
const system: c_int = @backingInt(capi.Code.system);

pub fn port(h: ?*Handle) callconv(.c) c_int {
    const handle = h orelse return invalid;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const d = netpoll.incref(handle) orelse return closed;
    defer netpoll.decref(d);
    var address: net.Address = .{};
    return if (net.localAddress(d.fd, &address)) address.port() else system;
}

pub fn read(h: ?*Handle, buffer: ?[*]u8, size: usize, deadline: i64) callconv(.c) isize {
    const handle = h orelse return invalid;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const d = netpoll.incref(handle) orelse return closed;
    defer netpoll.decref(d);
    const out = buffer orelse return if (size == 0) 0 else invalid;
    while (true) {
        switch (net.readAny(d.fd, out, size)) {
            .done => |n| return @intCast(n),
            .again => if (stopped(d, false, deadline)) |c| return c,
            .failed => return system,
        }
    }
}

pub fn write(h: ?*Handle, buffer: ?[*]const u8, size: usize, deadline: i64) callconv(.c) isize {
    const handle = h orelse return invalid;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const d = netpoll.incref(handle) orelse return closed;
    defer netpoll.decref(d);
    const from = buffer orelse return if (size == 0) 0 else invalid;
    var sent: usize = 0;
    while (sent < size) {
        switch (net.writeAny(d.fd, from + sent, size - sent)) {
            .done => |n| sent += n,
            .again => if (stopped(d, true, deadline)) |c| return c,
            .failed => return system,
        }
    }
    return @intCast(sent);
}

fn stopped(d: *Desc, write_side: bool, deadline: i64) ?isize {
    if (deadline == 0) return would_block;
    const c: capi.Code = switch (netpoll.wait(d, write_side, capi.limit(deadline))) {
        .ready => return null,
        .closed => .closed,
        .busy => .invalid,
        .timeout => .timeout,
    };
    return @backingInt(c);
}
