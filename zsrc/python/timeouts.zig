//! Time-outs as Python code gives them: seconds, or None for ever.
const std = @import("std");
const os = @import("../os/os.zig");
const py = @import("py.zig");
const host = @import("host/host.zig");

pub const Limit = union(enum) {
    forever,
    /// Zero or less: do not wait.
    poll,
    ns: u64,

    /// Null with an exception set when it is no number.
    pub inline fn fromPython(value: ?*py.Object) ?Limit {
        return fromObject(value orelse return .forever);
    }

    noinline fn fromObject(value: *py.Object) ?Limit {
        if (value == py.none()) return .forever;
        const text = "a time-out must be a number of seconds or None, not %R";
        return fromSeconds(number(value, text) orelse return null);
    }

    /// Monotonic ns at which the wait ends, from now on.
    pub fn deadline(l: Limit) ?u64 {
        return switch (l) {
            .forever => null,
            .poll => 0,
            .ns => |ns| clock() +| ns,
        };
    }
};

/// The caller's: a thread that is no goroutine waits by the real clock.
fn clock() u64 {
    const lane = &host.the_lane;
    return if (lane.virtual_ns == 0 or lane.onThread() == null) os.nanotime() else lane.virtual_ns;
}

/// Longer waits are for ever: 292 years, the range of Go's time.Duration.
pub const longest_s = 9.2e9;

/// Null with an exception set when it is no number.
pub inline fn parse(value: ?*py.Object) ?Limit {
    return Limit.fromPython(value);
}

/// `complaint` has a %R for a value that is no number.
pub fn number(value: *py.Object, complaint: [*:0]const u8) ?f64 {
    const n = py.PyFloat_AsDouble(value);
    if (n != -1.0) return n;
    const raised = py.PyErr_Occurred() orelse return n;
    if (py.PyErr_GivenExceptionMatches(raised, py.exc.typeError()) != 0) {
        py.PyErr_Clear();
        _ = py.PyErr_Format(py.exc.typeError(), complaint, value);
    }
    return null;
}

pub fn fromSeconds(seconds: f64) ?Limit {
    if (std.math.isNan(seconds)) {
        _ = py.raise(py.exc.valueError(), "a time-out must be a number of seconds, not nan", .{});
        return null;
    }
    if (seconds <= 0) return .poll;
    if (seconds >= longest_s) return .forever;
    return .{ .ns = @max(1, @as(u64, @intFromFloat(seconds * 1e9))) };
}
