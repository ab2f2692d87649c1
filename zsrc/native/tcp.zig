//! TCP for goroutines, over the poller: what golibx.h calls golibx_tcp_*, golibx_read and golibx_write.
const std = @import("std");
const os = @import("../os/os.zig");
const capi = @import("capi.zig");
const netpoll = @import("netpoll.zig");
const switching = lane.switching;
const lane = @import("lane.zig");

const net = os.net;
const Desc = netpoll.Desc;
const would_block: isize = -2;

fn fail(errno: std.c.E) ?*Desc {
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
fn adopt(fd: i32) ?*Desc {
    return capi.openDesc(fd) orelse {
        const errno = net.getErrno();
        net.close(fd);
        net.setErrno(errno);
        return null;
    };
}

pub fn listen(host: ?[*:0]const u8, number: u16, backlog: c_int) callconv(.c) ?*Desc {
    var address: net.Address = .{};
    if (!usable() or !parse(host, number, &address)) return null;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    return switch (net.listenOn(&address, backlog)) {
        .done => |fd| adopt(@intCast(fd)),
        .again => fail(.AGAIN),
        .failed => |e| {
            net.setErrno(e);
            return null;
        },
    };
}

pub fn accept(listener: ?*Desc, deadline: i64) callconv(.c) ?*Desc {
    const l = listener orelse return fail(.INVAL);
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    var address: net.Address = .{};
    while (true) {
        switch (net.acceptOne(l.fd, &address)) {
            .done => |fd| {
                net.noDelay(@intCast(fd));
                return adopt(@intCast(fd));
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

pub fn dial(host: ?[*:0]const u8, number: u16, deadline: i64) callconv(.c) ?*Desc {
    var address: net.Address = .{};
    if (!usable() or !parse(host, number, &address)) return null;
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    const fd: i32 = switch (net.connectTo(&address)) {
        .done => |fd| @intCast(fd),
        .again => return fail(.AGAIN),
        .failed => |e| {
            net.setErrno(e);
            return null;
        },
    };
    const d = adopt(fd) orelse return null;
    while (!net.writable(fd)) {
        if (waitFor(d, true, deadline)) |errno| {
            _ = netpoll.close(d);
            net.close(fd);
            return fail(errno);
        }
    }
    const e = net.pendingError(fd);
    if (e != 0) {
        _ = netpoll.close(d);
        net.close(fd);
        net.setErrno(e);
        return null;
    }
    net.noDelay(fd);
    return d;
}

pub fn port(d: ?*Desc) callconv(.c) c_int {
    const desc = d orelse return @backingInt(capi.Code.invalid);
    var address: net.Address = .{};
    if (!net.localAddress(desc.fd, &address)) return @backingInt(capi.Code.system);
    return address.port();
}

pub fn read(d: ?*Desc, buffer: ?[*]u8, size: usize, deadline: i64) callconv(.c) isize {
    const desc = d orelse return @backingInt(capi.Code.invalid);
    const out = buffer orelse return if (size == 0) 0 else @backingInt(capi.Code.invalid);
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    while (true) {
        switch (net.readAny(desc.fd, out, size)) {
            .done => |n| return @intCast(n),
            .again => if (stopped(desc, false, deadline)) |c| return c,
            .failed => return @backingInt(capi.Code.system),
        }
    }
}

pub fn write(d: ?*Desc, buffer: ?[*]const u8, size: usize, deadline: i64) callconv(.c) isize {
    const desc = d orelse return @backingInt(capi.Code.invalid);
    const from = buffer orelse return if (size == 0) 0 else @backingInt(capi.Code.invalid);
    const g = switching.enter();
    defer if (g) |self| switching.leave(self);
    var sent: usize = 0;
    while (sent < size) {
        switch (net.writeAny(desc.fd, from + sent, size - sent)) {
            .done => |n| sent += n,
            .again => if (stopped(desc, true, deadline)) |c| return c,
            .failed => return @backingInt(capi.Code.system),
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
