"""The triangle that each pixel shows, and the depths that a light sees: all that the graphics library computes."""

from typing import Any

import numpy as np
import numpy.typing as npt

from bench.rendered_cars.camera import Camera, Floats
from model.errors import CarsearchError

Ids = npt.NDArray[np.int32]

NEAR_M, FAR_M = 0.5, 400.0


class RasterUnavailable(CarsearchError, code="raster_unavailable"):
    """No off-screen picture can be opened on this machine."""


class Raster:
    """An off-screen picture of one body at a time; its colours are the numbers of triangles.

    Shading is our own, so a photo depends on the graphics library only by which triangle covers a pixel's centre.
    """

    def __init__(self, width: int, height: int) -> None:
        from vtkmodules.vtkRenderingCore import vtkActor, vtkPolyDataMapper, vtkRenderer

        self.width, self.height = width, height
        self._window = _open_window(width, height)
        self._renderer = vtkRenderer()
        self._renderer.SetBackground(0, 0, 0)
        self._window.AddRenderer(self._renderer)
        self._actors: list[Any] = []
        for _ in range(2):
            mapper = vtkPolyDataMapper()
            mapper.SetScalarModeToUseCellFieldData()
            mapper.SelectColorArray("id")
            mapper.SetColorModeToDirectScalars()
            actor = vtkActor()
            actor.SetMapper(mapper)
            actor.GetProperty().LightingOff()
            actor.GetProperty().BackfaceCullingOn()  # half of the work
            self._renderer.AddActor(actor)
            self._actors.append(actor)

    def load(self, points: Floats, faces: Ids, glass: npt.NDArray[np.bool_]) -> None:
        """Takes the triangles (n, 3) of the points (p, 3) of a body; `glass` (n,) are those that one sees through."""
        for actor, chosen in zip(self._actors, (np.flatnonzero(~glass), np.flatnonzero(glass)), strict=True):
            actor.GetMapper().SetInputData(_numbered(points, faces[chosen], chosen))

    def ids(self, camera: Camera, glass: bool) -> Ids:
        """The number of the nearest triangle at each pixel, (height, width), of the glass or of all else; -1: none."""
        from vtkmodules.vtkCommonCore import vtkUnsignedCharArray

        self._draw(camera, (not glass, glass), 1.0, 1.0)
        data = vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, self.width - 1, self.height - 1, 0, data, 0)
        rgb: Ids = _array(data).reshape(self.height, self.width, 3)[::-1].astype(np.int32)
        found: Ids = (rgb[..., 0] | rgb[..., 1] << 8 | rgb[..., 2] << 16) - 1
        return found

    def depth(self, camera: Camera, size: int, glass: bool = True) -> Floats:
        """The distance along `forward` to the nearest surface, (size, size), in metres; infinite: none."""
        from vtkmodules.vtkCommonCore import vtkFloatArray

        near, far = self._draw(camera, (True, glass), size / self.width, size / self.height)
        data = vtkFloatArray()
        self._window.GetZbufferData(0, 0, size - 1, size - 1, data)
        stored = _array(data).reshape(size, size)[::-1]
        metres = near * far / (far - stored * (far - near))
        return np.where(stored < 1, metres, np.inf).astype(np.float32)

    def _draw(self, camera: Camera, shown: tuple[bool, bool], right: float, top: float) -> tuple[float, float]:
        for actor, visible in zip(self._actors, shown, strict=True):
            actor.SetVisibility(visible)
        self._renderer.SetViewport(0, 0, right, top)
        view = self._renderer.GetActiveCamera()
        view.SetPosition(*map(float, camera.eye))
        view.SetFocalPoint(*map(float, camera.eye + camera.forward))
        view.SetViewUp(*map(float, camera.up))
        view.SetViewAngle(float(np.degrees(2 * np.arctan(camera.slope))))
        # The car is at most 4 m from the origin: a narrow range keeps the depths of a distant light exact.
        middle = float(np.dot(-camera.eye, camera.forward))
        near, far = max(NEAR_M, middle - 4), min(FAR_M, middle + 4)
        view.SetClippingRange(near, far)
        self._window.Render()
        return near, far


def _array(data: Any) -> npt.NDArray[Any]:
    from vtkmodules.util.numpy_support import vtk_to_numpy

    found: npt.NDArray[Any] = vtk_to_numpy(data)  # type: ignore[no-untyped-call]  # VTK is untyped
    return found


def _numbered(points: Floats, faces: Ids, numbers: npt.NDArray[np.intp]) -> Any:
    """Triangles as VTK holds them, each with its number plus 1 as a colour."""
    import pyvista as pv

    if not len(faces):  # a car without windows is a car too
        return pv.PolyData()
    used, index = np.unique(faces, return_inverse=True)
    flat = np.hstack((np.full((len(faces), 1), 3), index.reshape(-1, 3)))
    mesh = pv.PolyData(points[used], flat.ravel())
    colours = numbers + 1
    mesh.cell_data["id"] = np.stack((colours & 255, colours >> 8 & 255, colours >> 16), 1).astype(np.uint8)
    return mesh


def _open_window(width: int, height: int) -> Any:
    """An off-screen window: EGL, or else what the platform has."""
    from vtkmodules import vtkRenderingOpenGL2
    from vtkmodules.vtkCommonCore import vtkObject

    vtkObject.GlobalWarningDisplayOff()  # failed attempts are expected
    kinds = [getattr(vtkRenderingOpenGL2, name, None) for name in ("vtkEGLRenderWindow", "vtkOSOpenGLRenderWindow")]
    for kind in (*kinds, vtkRenderingOpenGL2.vtkOpenGLRenderWindow):
        if kind is None:
            continue
        window = kind()
        window.SetOffScreenRendering(1)
        window.SetMultiSamples(0)  # numbers cannot be averaged
        window.SetSize(width, height)
        window.Initialize()
        if window.GetInitialized() if hasattr(window, "GetInitialized") else True:
            return window
    raise RasterUnavailable("No off-screen picture can be opened; install EGL (Debian: libegl1, libgl1-mesa-dri).")
