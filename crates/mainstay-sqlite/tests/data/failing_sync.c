/* Preloaded into a child process. While the file named by FAIL_SYNC_WHILE exists, every sync fails;
   or hangs until it does not, if the file begins with an 'h'. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int sync_or_fail(const char *name, int fd) {
    const char *path = getenv("FAIL_SYNC_WHILE");
    int sign = path ? open(path, O_RDONLY) : -1;
    if (sign >= 0) {
        char how = 0;
        int hangs = read(sign, &how, 1) == 1 && how == 'h';
        close(sign);
        if (!hangs) {
            errno = EIO;
            return -1;
        }
        while (access(path, F_OK) == 0) usleep(1000);
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd) { return sync_or_fail("fsync", fd); }
int fdatasync(int fd) { return sync_or_fail("fdatasync", fd); }
