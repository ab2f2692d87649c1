//! Where a loaded library keeps its data: the writable segment that holds an address, and the
//! calling thread's copy of the library's thread-local data. Both by the program headers that the
//! loader keeps in memory.
const objects = @import("objects_linux.zig");
const Object = objects.Object;

pub const supported = true;

pub const Data = struct {
    /// The end of the segment.
    end: usize,
    /// Of the calling thread; none where the library has no such data, or no thread has used it
    /// yet.
    thread_local: []const usize,
};

const Search = struct { address: usize, found: ?Data = null };

/// What belongs to the library that has `address` in a segment of its own.
pub fn of(address: usize) ?Data {
    var s: Search = .{ .address = address };
    _ = objects.dl_iterate_phdr(visit, &s);
    return s.found;
}

fn visit(object: *Object, size: usize, context: ?*anyopaque) callconv(.c) c_int {
    const s: *Search = @ptrCast(@alignCast(context.?));
    if (size < @sizeOf(Object)) return 1;
    var end: ?usize = null;
    var words: usize = 0;
    for (object.headers[0..object.header_count]) |*h| {
        const at = object.base +% h.vaddr;
        switch (h.type) {
            .LOAD => if (s.address >= at and s.address < at + h.memsz) {
                end = at + h.memsz;
            },
            .TLS => words = h.memsz / @sizeOf(usize),
            else => {},
        }
    }
    const local: []const usize = if (object.tls_data) |data| data[0..words] else &.{};
    s.found = .{ .end = end orelse return 0, .thread_local = local };
    return 1;
}
