// Asks a server through the client that openapi-generator has generated for Java; see ../test_clients.py.
import java.io.File;
import java.nio.file.Files;
import java.util.HexFormat;
import java.util.List;
import java.util.stream.Collectors;
import org.openapitools.client.ApiClient;
import org.openapitools.client.ApiException;
import org.openapitools.client.api.GalleryApi;
import org.openapitools.client.api.SearchApi;
import org.openapitools.client.model.Hit;
import org.openapitools.client.model.Problem;
import org.openapitools.client.model.SearchResponse;

public class Ask {
  static ApiClient client(String server, String key) {
    ApiClient client = new ApiClient();
    client.updateBaseUri(server);
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + key));
    return client;
  }

  static SearchResponse asked(String server, String path, String key, List<String> classes, String where) throws Exception {
    return new SearchApi(client(server, key)).search(new File(path), 2, classes, where, null, null, null, null, null);
  }

  static void refused(String server, String path, String key, List<String> classes) throws Exception {
    try {
      asked(server, path, key, classes, null);
    } catch (ApiException error) {
      Problem problem = new ApiClient().getObjectMapper().readValue(error.getResponseBody(), Problem.class);
      System.out.println(error.getCode() + " " + problem.getCode());
      return;
    }
    throw new AssertionError("it was answered");
  }

  public static void main(String[] given) throws Exception {
    String url = given[0], key = given[4], photo = given[5];
    SearchResponse found = asked(url, photo, key, null, null);
    System.out.println("search " + found.getNearest().getPropertyClass());
    List<Hit> some = asked(url, photo, key, List.of("car 2"), null).getResults();
    System.out.println("filtered " + some.stream().map(Hit::getPropertyClass).collect(Collectors.joining(" ")));
    for (Hit hit : asked(url, photo, key, null, "price > 1000000").getResults()) {
      Object price = hit.getMetadata().get("price").getActualInstance();
      Object colour = hit.getMetadata().get("colour").getActualInstance();
      System.out.println("where " + hit.getPropertyClass() + " " + price + " " + colour);
    }
    File image = new GalleryApi(client(url, key)).getGalleryImage(found.getNearest().getId(), null, null, null, null);
    System.out.println("image " + HexFormat.of().formatHex(Files.readAllBytes(image.toPath()), 0, 3));
    refused(given[1], photo, key, null);
    refused(url, photo, "none", null);
    refused(url, given[6], key, null);
    refused(url, photo, key, List.of("spaceship"));
    refused(given[2], photo, key, null);
    refused(given[3], photo, key, null);
  }
}
