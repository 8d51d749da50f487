// Asks a server through the client that openapi-generator has generated for Go; see ../test_clients.py.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	client "carsearch.test/client"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func at(server string, key string) (*client.APIClient, context.Context) {
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: server}}
	keys := map[string]client.APIKey{"key": {Key: key}}
	return client.NewAPIClient(configuration), context.WithValue(context.Background(), client.ContextAPIKeys, keys)
}

func asked(server, path, key string, classes []string, where string) (*client.SearchResponse, error) {
	api, ctx := at(server, key)
	file, err := os.Open(path)
	check(err)
	request := api.SearchAPI.Search(ctx).File(file).K(2)
	if classes != nil {
		request = request.Class(classes)
	}
	if where != "" {
		request = request.Where(where)
	}
	found, _, err := request.Execute()
	return found, err
}

func refused(server, path, key string, classes []string) {
	_, err := asked(server, path, key, classes, "")
	var failed *client.GenericOpenAPIError
	if !errors.As(err, &failed) {
		panic("it was answered")
	}
	problem := failed.Model().(client.Problem)
	fmt.Println(problem.Status, problem.Code)
}

func main() {
	url, malformed, full, unready, key, photo, text := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6], os.Args[7]
	found, err := asked(url, photo, key, nil, "")
	check(err)
	nearest := found.GetNearest()
	fmt.Println("search", nearest.GetClass())
	some, err := asked(url, photo, key, []string{"car 2"}, "")
	check(err)
	fmt.Print("filtered")
	for _, hit := range some.Results {
		fmt.Print(" ", hit.GetClass())
	}
	fmt.Println()
	priced, err := asked(url, photo, key, nil, "price > 1000000")
	check(err)
	for _, hit := range priced.Results {
		fmt.Printf("where %s %.2f %s\n", hit.GetClass(), *hit.Metadata["price"].Float64, *hit.Metadata["colour"].String)
	}
	api, ctx := at(url, key)
	image, _, err := api.GalleryAPI.GetGalleryImage(ctx, nearest.Id).Execute()
	check(err)
	begun := make([]byte, 3)
	_, err = io.ReadFull(image, begun)
	check(err)
	fmt.Printf("image %x\n", begun)
	refused(malformed, photo, key, nil)
	refused(url, photo, "none", nil)
	refused(url, text, key, nil)
	refused(url, photo, key, []string{"spaceship"})
	refused(full, photo, key, nil)
	refused(unready, photo, key, nil)
}
