//! What acquire() of the interpreter's locks is given: whether to wait, and for how long.
const py = @import("../py.zig");
const arguments = @import("../arguments.zig");
const timeouts = @import("../timeouts.zig");
const replace = @import("replace.zig");

/// _thread.TIMEOUT_MAX: what is longer is refused.
var longest_s: f64 = 0;

/// False with an exception set.
pub fn setUp() bool {
    const longest = py.importFrom("_thread", "TIMEOUT_MAX") orelse return false;
    defer py.decref(longest);
    longest_s = py.PyFloat_AsDouble(longest);
    return py.PyErr_Occurred() == null;
}

const signature: arguments.Signature = .of("acquire(blocking=True, timeout=-1)");

pub const Parsed = union(enum) {
    limit: timeouts.Limit,
    /// The original function says what is wrong.
    refused,
    /// With an exception set.
    raised,
};

fn refused() Parsed {
    py.PyErr_Clear();
    return .refused;
}

pub fn parse(c: replace.Call) Parsed {
    if (c.n == 0 and c.names == null) return .{ .limit = .forever };
    const given = arguments.parse(signature, c.args, c.n, c.names) orelse return refused();
    var wait = true;
    if (given[0]) |b| {
        if (!py.isInt(b)) return .refused; // some versions do
        const truth = py.PyObject_IsTrue(b);
        if (truth < 0) return .raised;
        wait = truth != 0;
    }
    const none: timeouts.Limit = if (wait) .forever else .poll;
    const seconds = py.PyFloat_AsDouble(given[1] orelse return .{ .limit = none });
    if (seconds == -1.0)
        return if (py.PyErr_Occurred() == null) .{ .limit = none } else refused();
    if (!wait or !(seconds >= 0 and seconds <= longest_s)) return .refused;
    return .{ .limit = timeouts.fromSeconds(seconds) orelse return .raised };
}
