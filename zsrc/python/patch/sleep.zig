//! time.sleep() in goroutines: the goroutine parks.
const py = @import("../py.zig");
const host = @import("../host/host.zig");
const goroutine = @import("../host/goroutine.zig");
const identity = @import("../host/identity.zig");
const replace = @import("../host/replace.zig");
const timeouts = @import("../timeouts.zig");

const lane = &host.the_lane;

const Sleep = replace.Replacement("time", "sleep", identity.inGoroutine, sleep);
pub const all = .{Sleep};

fn sleep(c: replace.Call) ?*py.Object {
    if (c.n != 1 or !(py.isInt(c.args[0]) or py.isFloat(c.args[0]))) return Sleep.callOriginal(c);
    const seconds = py.PyFloat_AsDouble(c.args[0]);
    // What is longer, or is no such number, the original says something of.
    if (!(seconds >= 0 and seconds < timeouts.longest_s)) {
        py.PyErr_Clear(); // of an int that no float holds
        return Sleep.callOriginal(c);
    }
    if (lane.here() == null) return Sleep.callOriginal(c);
    if (py.minor() >= 13 and py.extra.PySys_Audit.?("time.sleep", "O", c.args[0]) < 0) return null;
    const limit = timeouts.fromSeconds(seconds).?;
    const p = goroutine.forPark() orelse return null;
    if (limit == .poll) {
        p.g.gave_way = true;
        lane.gosched(&p.g);
        return py.returnNone();
    }
    const deadline = limit.deadline();
    while (true) {
        lane.prepare(&p.g);
        if (lane.park(&p.g, .sleep, deadline) != .interrupted) return py.returnNone();
        if (goroutine.raisePending(p)) return null;
    }
}
